"""`fedmri-server report`: a run's page anew, or several runs side by side."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import add_debug
from common.errors import ConfigError, FedMRIError
from common.files import write_atomic
from common.run_folder import REPORT_NAME
from server.report.compare_runs import DAMAGED, compare_runs
from server.report.decode import measure
from server.report.mend import how_to_mend
from server.report.page import runs as page
from server.report.page.values import difference_text, measure_text, number
from server.report.publish import HTML_NAME, render_run
from server.report.report import decode, read_report
from server.report.terminal import result_table

RUNS_NAME = "comparison.html"


def add_report(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the parser."""
    text = (
        "With one run: write its report.html anew from its report.json. With several: show them side by side, each against the "
        "first, as a table and as a page."
    )
    verb = verbs.add_parser("report", help="write a run's page anew, or compare runs", description=text)
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    verb.add_argument("--out", type=Path, metavar="FILE", help=f"the page; default: {HTML_NAME}, of several {RUNS_NAME}, in RUN")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=report)


def report(arguments: argparse.Namespace) -> int:
    """The verb; 0 once all is read and written."""
    if arguments.out is not None and (arguments.out.is_dir() or arguments.out.name == REPORT_NAME):
        raise ConfigError(f"--out {arguments.out}: expected the name of an HTML file, such as runs.html.")
    return _one(arguments) if len(arguments.runs) == 1 else _several(arguments)


def _one(arguments: argparse.Namespace) -> int:
    run = arguments.runs[0]
    out = arguments.out or run / HTML_NAME
    found = read_report(run)
    try:
        content = render_run(run, found)
        shown = result_table(decode(found))
    except (*DAMAGED, TemplateError) as error:
        raise FedMRIError(
            f"{run / REPORT_NAME}: expected a report as FedMRI writes it; it was changed or damaged ({type(error).__name__}). "
            f"{how_to_mend(run)}"
        ) from error
    _write(out, content)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(shown)
        print(f"The page: {out}")
    return 0


def _several(arguments: argparse.Namespace) -> int:
    compared = compare_runs(arguments.runs)
    out = arguments.out or arguments.runs[0] / RUNS_NAME
    _write(out, page.render(compared))
    if arguments.json:
        print(json.dumps(compared, indent=2))
        return 0
    Console().print(_table(compared))
    for sentence in page.cautions(compared["runs"]):
        print(sentence)
    for run in compared["runs"]:
        if run["unpaired"]:
            print(f"{run['name']}: {run['unpaired']}.".replace("..", "."))
    for key, values in compared["config"].items():
        print(f"{key}: {' | '.join(page.text(value) or '-' for value in values)}")
    print(f"The page: {out}")
    return 0


def _table(compared: Mapping[str, Any]) -> Table:
    """One line a run, and its difference from the first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.caption = Text("95% bootstrap intervals over patients; differences are paired by patient.", style="dim")
    table.caption_justify = "left"
    table.add_column("Run", overflow="fold")
    for name in ("n", "MCC", "Balanced accuracy", "AUROC", "ECE", "Minus the first, MCC"):
        table.add_column(name, justify="right")
    for run in compared["runs"]:
        paired = run["paired"]
        difference = difference_text(measure(paired["differences"]["mcc"])) if paired else ""
        values = [number(run[key]["value"]) for key in ("balanced_accuracy", "auroc")]
        cells = [str(run["n"]), measure_text(measure(run["mcc"])), *values, number(run["calibration"]["ece"], 3), difference]
        table.add_row(*(Text(cell) for cell in (run["name"], *cells)))
    return table


def _write(out: Path, content: str) -> None:
    try:
        write_atomic(out, content.encode("utf-8"))
    except OSError as error:
        raise FedMRIError(f"{out} could not be written ({error.strerror}). Name another file with --out.") from error
