"""A survey: what each connected hospital tells of its patients, before anything trains. Leaves RUN/survey.json."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.data.survey import Answer
from common.errors import ConfigError, FederationError
from common.files import write_atomic
from common.messages.code_version import code_hash
from common.messages.round import Task
from common.messages.survey import read_answer, write_survey
from common.text import printable
from server.run.asking import ask
from server.run.ending import told_of_end
from server.strategy.progress import Progress
from server.strategy.site_selection import Presence

NAME = "survey.json"
NUMBER = 1  # of the round that a request names


def survey(grid: Grid, config: RunConfig, out: Path) -> dict[str, Any]:
    """Ask everybody once.

    Args:
        grid: Flower's, to send by.
        config: its classes and modalities are what is asked for.
        out: where survey.json goes; its presence marks a survey that succeeded.

    Raises:
        FederationError: too few sites are connected, none answered, or the SuperLink is away.
    """
    progress = Progress(out, 1)
    with told_of_end(progress):
        return _survey(grid, config, out, progress)


def _survey(grid: Grid, config: RunConfig, out: Path, progress: Progress) -> dict[str, Any]:
    presence = Presence(replace(config.federation, min_sites=1), (), progress)
    presence.wait(grid, NUMBER)
    there, _ = presence.called(grid, NUMBER)
    task = Task(NUMBER, config.to_json(), code_hash(), "", out.name)
    asked = ask(
        grid, {address: write_survey(task) for address in there}, NUMBER, config.federation.round_timeout, "survey", progress
    )
    answers, failures = {}, dict(asked.failures)
    for name, content in asked.told.items():
        try:
            answers[name] = read_answer(content)
        except FederationError as error:
            failures[name] = printable(str(error), 300)
    if not answers:
        said = "; ".join(f"{name}: {why}" for name, why in sorted(failures.items()))
        raise FederationError(f"No hospital answered the survey. {said}")
    found = as_json(answers, failures)
    write_atomic(out / NAME, json.dumps(found, indent=1).encode())
    return found


def as_json(answers: Mapping[str, Answer], failures: Mapping[str, str]) -> dict[str, Any]:
    """survey.json: `sites` {name: answer}, `total` over them, `failures` {name: why}."""
    totals: dict[str, Counter[str]] = {}
    for answer in answers.values():
        for topic, groups in answer.topics.items():
            totals.setdefault(topic, Counter()).update(groups)
    return {
        "sites": {name: json.loads(json.dumps(asdict(answers[name]))) for name in sorted(answers)},
        "total": {
            "patients": sum(answer.patients for answer in answers.values()),
            "topics": {topic: dict(groups) for topic, groups in totals.items()},
        },
        "failures": dict(sorted(failures.items())),
    }


def read_survey_plan(run_config: Mapping[str, Any], settings: tuple[str, ...]) -> RunConfig:
    """The configuration of a survey, from Flower's run configuration.

    Raises:
        ConfigError: a wrong setting.
        FederationError: this is not the code that was started.
    """
    expected = str(run_config.get("code", ""))
    if expected and expected != code_hash():
        raise FederationError(f"Flower runs other code ({code_hash()[:12]}) than the one that started the survey.")
    return load_config(config_path(str(run_config.get("config", "demo"))), settings)


def wanted(run_config: Mapping[str, Any]) -> bool:
    """Whether the run is a survey.

    Raises:
        ConfigError: the key is neither true nor false.
    """
    value = run_config.get("survey", False)
    if not isinstance(value, bool):
        raise ConfigError(f"Run configuration key 'survey': expected true or false, got {value!r}.")
    return value
