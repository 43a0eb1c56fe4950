"""The page that compares runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.report.decode import Measure, measure
from server.report.evaluation import Evaluation, decode_detectable
from server.report.page import comparison, svg
from server.report.page.headline import detectable_text
from server.report.page.page import template
from server.report.page.values import and_text, number, patients_text

BETTER, WORSE = "this run is better", "this run is worse"


def render(compared: Mapping[str, Any]) -> str:
    """What `server.report.compare_runs.compare_runs` gave as one self-contained page."""
    runs = [_shown(run) for run in compared["runs"]]
    paired = [_difference(run["name"], run["paired"]) for run in compared["runs"] if run["paired"]]
    smallest = [detectable_text(decode_detectable(run["paired"]["detectable"])) for run in compared["runs"] if run["paired"]]
    return template("runs.html").render(
        title=headline(compared),
        patients=_patients(compared),
        cautions=cautions(compared["runs"]),
        runs=runs,
        axis=svg.mcc_axis([run["mcc"] for run in runs]),
        paired=paired,
        smallest=list(dict.fromkeys(filter(None, smallest))),
        unpaired=[(run["name"], run["unpaired"]) for run in compared["runs"] if run["unpaired"]],
        subsets=_subsets(compared["runs"]),
        config=[(key, [text(value) for value in row]) for key, row in compared["config"].items()],
        svg=svg,
        verdict=lambda difference: comparison.verdict(difference, BETTER, WORSE),
    )


def headline(compared: Mapping[str, Any]) -> str:
    """The runs' MCC in a sentence."""
    parts = tuple(f"{run['name']} {number(run['mcc']['value'])}" for run in compared["runs"])
    return f"MCC on the external hospital: {and_text(parts)}."


def cautions(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before reading on: once where it holds for all runs, else with the run's name."""
    said = {run["caution"] for run in runs}
    return [*filter(None, said)] if len(said) == 1 else [f"{run['name']}: {run['caution']}" for run in runs if run["caution"]]


def text(value: Any) -> str:
    """A setting as its file has it; nothing where a run has no such setting."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _patients(compared: Mapping[str, Any]) -> str:
    hospitals = tuple(dict.fromkeys(run["external"] for run in compared["runs"] if run["external"]))
    if len(hospitals) == 1:
        return f"Here it is {hospitals[0]} for all of them."
    return "It is not the same hospital for all of them." if hospitals else ""


def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
    names = (("Balanced accuracy", "balanced_accuracy"), ("AUROC", "auroc"), ("Brier score", "brier"))
    return {**run, "mcc": measure(run["mcc"]), "measures": [(name, measure(run[key])) for name, key in names]}


def _difference(name: str, paired: Mapping[str, Any]) -> comparison.Row:
    """A line of the forest plot of differences."""
    note = f"{patients_text(paired['n'])} in common"
    return comparison.measured(name, note, Evaluation(difference=measure(paired["differences"]["mcc"])))


def _subsets(runs: list[Mapping[str, Any]]) -> list[tuple[str, list[Measure]]]:
    keys = dict.fromkeys(key for run in runs for key in run["subsets"])
    ordered = sorted(keys, key=lambda key: -key.count("+"))
    return [(key, [measure(run["subsets"].get(key)) for run in runs]) for key in ordered]
