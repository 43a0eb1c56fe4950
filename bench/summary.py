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
    found = {"federated": report["external"], "pooled": baselines["pooled"], "linear probe": baselines["linear_probe"]}
    return found | {f"{site} alone": result for site, result in baselines["local"].items()}


def main(runs: list[Path]) -> None:
    """Print a table: one row a model, one column a run, and the mean."""
    tables = [results(run) for run in runs]
    print("| model | " + " | ".join(run.name for run in runs) + " | mean MCC | mean AUROC |")
    print("|---" * (len(runs) + 3) + "|")
    for name in tables[0]:
        mcc = [table[name]["mcc"]["value"] for table in tables]
        auroc = [table[name]["auroc"]["macro"] for table in tables]
        cells = [f"{m:.2f} / {a:.2f}" for m, a in zip(mcc, auroc, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + f" | {statistics.mean(mcc):.3f} | {statistics.mean(auroc):.3f} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
