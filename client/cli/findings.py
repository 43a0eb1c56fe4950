"""`fedmri-site predict` with a model of findings: a table of patients by findings."""

import argparse
import json
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.errors import ConfigError, DataError
from common.terminal.progress import long_work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.predict.inputs import PredictionInputs
    from client.predict.prediction import Answer
    from client.predict.prefetch import Read
    from common.model_files.opened_model import OpenedModel


def require_no_class_options(arguments: argparse.Namespace) -> None:
    """Refuse options that explain a class, or guide slices for one.

    Raises:
        ConfigError: names the option.
    """
    for name in ("card", "evidence", "mask_model"):
        if getattr(arguments, name):
            raise ConfigError(
                f"--{name.replace('_', '-')}: the model tells several findings, and predicts no class. Leave the option out."
            )


def tell_findings(read: "Iterable[Read]", asked: "PredictionInputs", opened: "OpenedModel", arguments: argparse.Namespace) -> int:
    """All patients in batches; one that fails is named, and the others go on."""
    from client.predict.findings import find

    broken, answers, todo = dict(asked.broken), list["Answer"](), iter(read)
    with long_work(f"Predicting {len(asked.cases)} patients") as report:
        while batch := list(islice(todo, opened.config.evaluation.batch_size)):
            good = [(case, sliced) for case, sliced in batch if not isinstance(sliced, DataError)]
            wrong = {case.id: sliced for case, sliced in batch if isinstance(sliced, DataError)}
            if asked.single and wrong:
                raise next(iter(wrong.values()))
            broken |= {name: str(error) for name, error in wrong.items()}
            answers += find(opened, good) if good else []
            report(len(answers) + len(wrong), len(asked.cases))
    _say(answers, broken, asked, arguments)
    return 1 if broken else 0


def _say(answers: "list[Answer]", broken: dict[str, str], asked: "PredictionInputs", arguments: argparse.Namespace) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if arguments.json:
        tables = [_table(one, asked) for one in answers]
        failed = [{"patient": name, "error": text} for name, text in broken.items()]
        print(json.dumps(tables[0] if asked.single else [*tables, *failed], indent=2))
    else:
        _print(answers)
        for one in answers:
            for finding in one.sliced.findings:
                if asked.single or finding.level == "warning":
                    errors.print(f"{finding.level.capitalize()}: {finding}", style="yellow" if finding.level == "warning" else "")
    for name, text in broken.items():
        errors.print(f"No answer for {name}: {text}", style="red")


def _table(one: "Answer", asked: "PredictionInputs") -> dict[str, Any]:
    """How the patient's files were found stands before how these were read."""
    from client.predict.findings import findings_table

    table, names = findings_table(one), [asdict(each) for each in asked.findings if each.patient == one.case.id]
    return {**table, "findings": [*names, *table["findings"]]}


def _print(answers: "list[Answer]") -> None:
    from client.predict.findings import told
    from client.predict.prediction import RESEARCH
    from common.evaluation.findings import task_of

    console = Console(highlight=False)
    if answers:
        task = task_of(answers[0].config)
        shown = Table("patient", *map(escape, task.findings), "modalities")
        for one in answers:
            there = told(one)
            cells = [
                Text(f"{p:.3f}", style="bold" if name in there else "")
                for name, p in zip(task.findings, one.probabilities, strict=True)
            ]
            shown.add_row(Text(one.case.id), *cells, Text("+".join(one.used)))
        console.print(shown)
        text = f"Bold: told, above {task.threshold:g}. Probabilities are the model's own: such models are not calibrated yet, "
        console.print(f"{text}and whether a patient is like the training patients is not known.", style="yellow", soft_wrap=True)
    console.print(RESEARCH)
