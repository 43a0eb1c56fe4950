"""Before round 1, where the run harmonises (`data.harmonise`): the sites' landmarks become one standard intensity scale.

They are asked by a survey (`common.messages.survey`), under its rules: of the topic `intensities`, as a mean over no fewer
patients than each hospital's minimum. The standard becomes `data.standard` of the run's configuration, so that sites, external
evaluation, predictions and releases cut slices by it. Who tells nothing is named, and maps to it all the same.

RUN/standard.json   {"standard": [rows of data.standard], "sites": {name: patients}, "failures": {name: why}}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from common.config.run import RunConfig
from common.config.standard import Standard
from common.data.survey import Answer
from common.errors import ConfigError, FederationError
from common.files import write_atomic
from common.messages.code_version import code_hash
from common.messages.round import Task
from common.messages.survey import read_answer, write_survey
from common.text import printable
from server.run.asking import ask
from server.run.plan import RunPlan, travelling_config
from server.strategy.progress import Progress
from server.strategy.round_state import Address
from server.strategy.site_selection import Presence

NAME = "standard.json"


def harmonised(grid: Grid, plan: RunPlan, progress: Progress) -> RunPlan:
    """The plan with the standard that its sites' landmarks give; unchanged where the run does not harmonise, or has one.

    Raises:
        FederationError: too few sites are connected, none told any landmarks, or the SuperLink is away.
    """
    if not plan.config.data.harmonise or plan.config.data.standard:
        return plan
    if plan.resume and (kept := kept_standard(plan.out)):
        return replace(plan, config=with_standard(plan.config, kept))
    answers, failures = _asked(grid, plan, progress)
    standard = mean_standard(answers, plan.config)
    for name, why in sorted(failures.items()):
        log(WARNING, "Standard intensity scale: %s: %s", name, why)
    if not standard:
        said = "; ".join(f"{name}: {why}" for name, why in sorted(failures.items())) or "no site may tell of intensities"
        raise FederationError(
            f"data.harmonise: no site told its landmarks (policy.survey, topic intensities). {said}. Set data.standard, or "
            "data.harmonise = false."
        )
    told = {name: answer.patients for name, answer in sorted(answers.items()) if answer.scales}
    log(INFO, "Standard intensity scale of %s, by %s", ", ".join(row.name for row in standard), ", ".join(told))
    found = {"standard": [asdict(row) for row in standard], "sites": told, "failures": failures}
    write_atomic(plan.out / NAME, json.dumps(found, indent=1).encode())
    return replace(plan, config=with_standard(plan.config, standard))


def mean_standard(answers: Mapping[str, Answer], config: RunConfig) -> tuple[Standard, ...]:
    """The sites' mean landmarks of each modality that any tells, weighted by their patients."""
    rows = []
    for modality in config.data.modalities:
        told = [(each.scales[modality], each.patients) for _, each in sorted(answers.items()) if modality in each.scales]
        if told:
            marks = np.average([marks for marks, _ in told], axis=0, weights=[patients for _, patients in told])
            rows.append(Standard(modality, tuple(round(float(mark), 4) for mark in marks)))
    return tuple(rows)


def with_standard(config: RunConfig, standard: tuple[Standard, ...]) -> RunConfig:
    """The configuration with this standard."""
    return replace(config, data=replace(config.data, standard=standard))


def kept_standard(out: Path) -> tuple[Standard, ...]:
    """The standard that the run in a folder has; () where it has none that can be read."""
    try:
        rows = json.loads((out / NAME).read_text(encoding="utf-8"))["standard"]
        return tuple(Standard(str(row["name"]), tuple(float(mark) for mark in row["landmarks"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return ()


def _asked(grid: Grid, plan: RunPlan, progress: Progress) -> tuple[dict[str, Answer], dict[str, str]]:
    """Each site's answer, and why others gave none."""
    presence = Presence(plan.config.federation, plan.sites, progress)
    presence.held_out = plan.external
    presence.wait(grid, 1)
    there, _ = presence.called(grid, 1)
    found = ask(
        grid, {site: _request(plan, site) for site in there}, 1, plan.config.federation.round_timeout, "standard", progress
    )
    answers, failures = {}, dict(found.failures)
    for name, content in found.told.items():
        try:
            answers[name] = read_answer(content)
        except FederationError as error:
            failures[name] = printable(str(error), 300)
    return answers, failures


def _request(plan: RunPlan, site: Address) -> RecordDict:
    folders: dict[str, Any] = {"data": str(plan.data), "cache": str(plan.cache)} if plan.sites else {}
    task = Task(1, travelling_config(plan).to_json(), code_hash(), "", plan.out.name, site=site.site, **folders)
    return write_survey(task)
