"""Means over runs (seeds), as Markdown: `python bench/summary.py RUN ...` prints external MCC and macro AUROC of every model,
what calibration did, and the MCC of every subset of the modalities.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def results(run: Path) -> dict[str, dict[str, Any]]:
    """Every model's measures in one run."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    baselines = report["baselines"]
    found = {"federated": report["external"], "pooled": baselines.get("pooled"), "linear probe": baselines.get("linear_probe")}
    found |= {f"{site} alone": result for site, result in baselines.get("local", {}).items()}
    return {name: result for name, result in found.items() if result}


def _cell(result: dict[str, Any]) -> str:
    return f"{result['mcc']['value']:.2f} / {result['auroc']['macro']:.2f}"


def main(runs: list[Path]) -> None:
    """Print a table: one row a model, one column a run, and the mean."""
    tables = [results(run) for run in runs]
    print("| model | " + " | ".join(run.name for run in runs) + " | mean MCC | mean AUROC |")
    print("|---" * (len(runs) + 3) + "|")
    for name in tables[0]:
        known = [table[name] for table in tables if name in table]
        mcc, auroc = [one["mcc"]["value"] for one in known], [one["auroc"]["macro"] for one in known]
        cells = [_cell(table[name]) if name in table else "not run" for table in tables]
        print(f"| {name} | " + " | ".join(cells) + f" | {statistics.mean(mcc):.3f} | {statistics.mean(auroc):.3f} |")


def calibrated(runs: list[Path]) -> None:
    """Print what calibration did in runs that hold patients back."""
    reports = [json.loads((run / "report.json").read_text(encoding="utf-8")) for run in runs]
    if all(report.get("calibration") for report in reports):
        show_calibration([run.name for run in runs], reports)


def show_calibration(names: list[str], reports: list[dict[str, Any]]) -> None:
    """Print a table: one row a measure, one column a run, and the mean."""
    rows: dict[str, list[float]] = {}
    for report in reports:
        found, ood = report["calibration"], report.get("ood") or {}
        sets = found.get("conformal") or {}
        measures = {
            "temperature": found["temperature"],
            "held-back patients": found["patients"],
            **{f"{name.upper()}, {when}": found[when][name] for name in ("ece", "brier", "nll") for when in ("before", "after")},
            "coverage promised": sets.get("coverage"),
            "coverage observed": (sets.get("observed") or {}).get("value"),
            "classes in a set": sets.get("mean_size"),
            "flagged as unlike": ood["flagged"] / ood["of"] if ood.get("of") else None,
        }
        for name, value in measures.items():
            rows.setdefault(name, []).append(float("nan") if value is None else float(value))
    print("\n| | " + " | ".join(names) + " | mean |")
    print("|---" * (len(names) + 2) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in values) + f" | {statistics.mean(values):.3g} |")


def subsets(runs: list[Path]) -> None:
    """Print a table: one row a subset, with n, and MCC and interval in each run."""
    tables = [json.loads((run / "report.json").read_text(encoding="utf-8"))["modality_subsets"] for run in runs]
    if not all(tables):
        return
    print("\n| modalities | n | " + " | ".join(run.name for run in runs) + " | drop against all |")
    print("|---" * (len(runs) + 3) + "|")
    for name, first in tables[0].items():
        cells = [_span(table[name]["mcc"]) if name in table else "" for table in tables]
        print(f"| {name} | {first['n']} | " + " | ".join(cells) + f" | {_span(first.get('drop') or {})} |")


def _span(measure: dict[str, Any]) -> str:
    if measure.get("value") is None:
        return "-"
    if measure.get("low") is None:
        return f"{measure['value']:.2f}"
    return f"{measure['value']:.2f} ({measure['low']:.2f} to {measure['high']:.2f})"


if __name__ == "__main__":
    for table in (main, calibrated, subsets):
        table([Path(argument) for argument in sys.argv[1:]])
