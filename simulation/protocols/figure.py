"""The figure of a study: MCC with its interval of every row, and what each cost to train."""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

ROW, MARGIN = 0.22, 1.2  # inches
COLOURS = ("#1b6ca8", "#c8553d", "#5b8c5a", "#8367c7", "#b8860b", "#444444")


def figure(table: Mapping[str, Any]) -> bytes:
    """As SVG, the same bytes for the same table; rows without an MCC are left out.

    Args:
        table: as `protocols.json` holds it.
    """
    rows = [row for row in table["rows"] if not row["why"] and row["measures"]["mcc"]["value"] is not None]
    inputs = list(dict.fromkeys(row["input"] for row in rows))
    with rc_context({"svg.hashsalt": "fedmri", "svg.fonttype": "none", "font.size": 8}):
        drawn = Figure(figsize=(9, MARGIN + ROW * max(1, len(rows))), layout="constrained")
        scores, costs = drawn.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        for place, row in enumerate(rows):
            colour = COLOURS[inputs.index(row["input"]) % len(COLOURS)]
            mcc = row["measures"]["mcc"]
            if mcc["low"] is not None:
                scores.plot((mcc["low"], mcc["high"]), (place, place), color=colour, linewidth=1)
            scores.plot((mcc["value"],), (place,), "o", color=colour, markersize=4)
            costs.plot((max(row["seconds"], 0.01),), (place,), "s", color=colour, markersize=4)
        scores.set_yticks(range(len(rows)), [f"{row['input']}: {row['protocol']}" for row in rows])
        scores.set_ylim(len(rows) - 0.5, -0.5)
        scores.axvline(0, color="#999999", linewidth=0.5)
        scores.set_xlabel(f"MCC on {table['n']} patients of {table['external']}, 95% interval")
        costs.set_xscale("log")
        costs.set_xlabel("processor seconds")
        for axes in (scores, costs):
            axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        content = io.BytesIO()
        drawn.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
