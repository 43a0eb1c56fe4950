"""The table of a study, as Markdown."""

from collections.abc import Mapping
from typing import Any

from simulation.protocols.measures import SHOWN

HEADS = (
    "features",
    "protocol",
    "MCC",
    "AUROC",
    "balanced accuracy",
    "trained parameters",
    "processor s",
    "memory MB",
    "settings",
)


def markdown(table: Mapping[str, Any]) -> str:
    """The whole file."""
    lines = ["# Protocols", "", "![MCC and cost](protocols.svg)", "", "| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in table["rows"] if not row["why"]]
    lines += ["", caption(table), "", "## Features", ""]
    lines += [f"- {one['name']}: {one['width']} a patient, {one['seconds']:.1f} processor s" for one in table["inputs"]]
    failed = [f"- {row['input']}, {row['protocol']}: {row['why']}." for row in table["rows"] if row["why"]]
    lines += ["", "## Not answered", "", *failed] if failed else []
    told = {row["protocol"]: row["told"] for row in table["rows"] if row["told"]}
    lines += ["", "## What leaves a site", "", *(f"- {name}: {what}." for name, what in told.items())] if told else []
    return "\n".join(lines) + "\n"


def caption(table: Mapping[str, Any]) -> str:
    """What the figures are, and what chose."""
    trains = ", ".join(f"{name} ({count})" for name, count in table["training"].items())
    held = f"{table['held_back']} labelled patients whom the run's sites hold back take no part. " if table["held_back"] else ""
    return (
        f"{table['n']} labelled patients of {table['external']}, who answered once; 95% BCa bootstrap intervals over them. "
        f"Labelled training patients: {trains}. {held}Everything was chosen by these, and nothing by the external ones. "
        "Of several draws: the mean, and in brackets the least and the largest. Seconds are of all processors, for choosing, "
        "learning and answering. On frozen features they are without the backbone's pass, and memory is what arrays took at most "
        "meanwhile; where a head, an adapter or the backbone is trained, the pass is in both, and memory is of a whole process, "
        "libraries "
        f"included. This program took {table['peak_megabytes']:.0f} MB at most. Seed {table['seed']}, backbone "
        f"{table['backbone']}, licence of its weights: {table['weights_licence']}."
    )


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    return [
        row["input"],
        row["protocol"],
        *(span(row["measures"][name], row["draws"]) for name in SHOWN),
        str(row["parameters"]),
        f"{row['seconds']:.2f}",
        f"{row['peak_megabytes']:.1f}",
        row["chosen"],
    ]


def span(found: Mapping[str, float | None], draws: int) -> str:
    """Value and interval; a dash where there is none."""
    if found["value"] is None:
        return "-"
    text = f"{found['value']:.3f}"
    text += f" ({found['low']:.3f} to {found['high']:.3f})" if found["low"] is not None else ""
    return text + (f" [{found['least']:.3f}, {found['largest']:.3f}]" if draws > 1 else "")
