"""Means over runs (seeds): `python bench/summary.py RUN ...` prints external MCC and macro AUROC of every model, as Markdown."""

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


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
