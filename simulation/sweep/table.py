"""The table of a sweep, for the terminal and as Markdown."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from simulation.sweep.job import EXTERNAL, HELD
from simulation.sweep.measures import LOG_LOSS, MCC

HEADS = ("arm", "runs", "log-loss", "against the first", "MCC", "against the first", "external MCC", "against the first")
SHOWN = ((HELD, LOG_LOSS), (HELD, MCC), (EXTERNAL, MCC))  # each with its difference
CHOSEN = "chosen"


def caption(table: Mapping[str, Any]) -> str:
    """What the figures are, and what chose."""
    seeds = ", ".join(map(str, table["seeds"]))
    return (
        f"Means over the seeds {seeds}, with 95% bootstrap intervals over patients; differences are paired. Log-loss is balanced "
        "by class, smaller is better. Log-loss and MCC are of patients whom the training hospitals held back, and the log-loss "
        "chose the arm. The external hospital's figures are shown beside them; nothing was chosen on them."
    )


def terminal(table: Mapping[str, Any]) -> Table:
    """For people. Names are shown as they are, never read as markup."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=Text(caption(table), style="dim"), caption_justify="left")
    for place, head in enumerate(HEADS):
        shown.add_column(head, justify="left" if place == 0 else "right", overflow="fold")
    for arm in table["arms"]:
        style = "bold" if arm["name"] == table["chosen"] else ""
        shown.add_row(*(Text(cell) for cell in _cells(arm, table["chosen"])), style=style)
    return shown


def markdown(table: Mapping[str, Any]) -> str:
    """The same as a file, with the places, each arm's settings and the errors."""
    lines = ["# Sweep", "", "| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(_escaped(cell) for cell in _cells(arm, table["chosen"])) + " |" for arm in table["arms"]]
    lines += ["", caption(table), "", f"Trained on: {'; '.join(table['places'])}.", "", "## Arms", ""]
    lines += [f"- {arm['name']}: {', '.join(f'`{one}`' for one in arm['settings']) or 'the base'}" for arm in table["arms"]]
    errors = [error for arm in table["arms"] for error in arm["errors"]]
    lines += ["", "## What failed", "", *(f"- {error}" for error in errors)] if errors else []
    return "\n".join(lines) + "\n"


def _cells(arm: Mapping[str, Any], chosen: str | None) -> list[str]:
    name = f"{arm['name']} ({CHOSEN})" if arm["name"] == chosen else arm["name"]
    cells = [name, str(arm["runs"]) if arm["runs"] == arm["of"] else f"{arm['runs']} of {arm['of']}"]
    for part, measure in SHOWN:
        found = (arm[part] or {}).get(measure) or {}
        cells += [_span(found), _span(found.get("difference") or {}, sign="+")]
    return cells


def _span(found: Mapping[str, Any], sign: str = "") -> str:
    """Value and interval; a dash where there is none."""
    if found.get("value") is None:
        return "-"
    text = f"{found['value']:{sign}.3f}"
    return text if found.get("low") is None else f"{text} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
