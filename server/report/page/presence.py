"""Which site took part in which round: a grid of squares, each kind of another shape, so that colour says nothing alone."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

from server.report.page.svg import figure, markup, text
from server.report.round import Round

CELL, GAP = 16, 4  # pixels
ROUNDS_AT_MOST, SITES_AT_MOST = 200, 100  # as many of the last ones are drawn
HERE, FAILED, PAUSED, ABSENT = "here", "failed", "paused", "absent"
LEGEND = {
    HERE: "its update was used",
    FAILED: "its reply was not used",
    PAUSED: "not asked (paused)",
    ABSENT: "did not take part",
}


def grid(rounds: Sequence[Round]) -> tuple[tuple[str, Markup], ...]:
    """(site, its squares); nothing where the rounds do not name their sites."""
    rows, sites = _drawn(rounds)
    return tuple((site, _squares([_state(row, site) for row in rows], f"{site}")) for site in sites)


def axis(rounds: Sequence[Round]) -> Markup:
    """The rounds' numbers under the grid, as many as there is room for."""
    rows, _ = _drawn(rounds)
    root = _sheet(len(rows), 14, "")
    every = max(1, -(-max((len(str(row.number)) for row in rows), default=1) * 9 // (CELL + GAP)))
    every = every if len(rows) <= 12 else max(every, 5)
    for place, row in enumerate(rows):
        if (len(rows) - 1 - place) % every == 0:
            text(root, str(place * (CELL + GAP) + CELL / 2), 11, str(row.number), "tick", "middle")
    return markup(root)


def legend(rounds: Sequence[Round]) -> tuple[tuple[Markup, str], ...]:
    """The kinds of squares that the grid has, with their meaning."""
    rows, sites = _drawn(rounds)
    seen = {_state(row, site) for row in rows for site in sites}
    return tuple((_squares([kind], ""), words) for kind, words in LEGEND.items() if kind in seen)


def _drawn(rounds: Sequence[Round]) -> tuple[list[Round], list[str]]:
    rows = list(rounds)[-ROUNDS_AT_MOST:]
    if not any(row.there for row in rows):
        return [], []
    return rows, sorted({site for row in rows for site in (*row.there, *row.failed, *row.paused)})[:SITES_AT_MOST]


def _state(row: Round, site: str) -> str:
    if site in row.there:
        return HERE
    return FAILED if site in row.failed else PAUSED if site in row.paused else ABSENT


def _squares(states: Sequence[str], site: str) -> Markup:
    said = ", ".join(f"{states.count(kind)} {words}" for kind, words in LEGEND.items() if kind in states)
    root = _sheet(len(states), CELL, f"Rounds by kind: {said}" if site else "")
    for place, state in enumerate(states):
        _square(root, place * (CELL + GAP), state)
    return markup(root)


def _sheet(cells: int, height: int, label: str) -> ET.Element:
    root = figure(height, label)
    root.set("width", str(max(cells, 1) * (CELL + GAP)))
    return root


def _square(root: ET.Element, left: int, state: str) -> None:
    if state == HERE:
        ET.SubElement(root, "rect", {"x": str(left), "width": str(CELL), "height": str(CELL), "rx": "3", "class": "fill"})
    elif state == FAILED:
        for x1, x2 in ((left + 3, left + CELL - 3), (left + CELL - 3, left + 3)):
            _stroke(root, x1, 3, x2, CELL - 3, "cross")
    elif state == PAUSED:
        for x in (left + 5, left + CELL - 5):
            _stroke(root, x, 3, x, CELL - 3, "pause")
    else:
        _stroke(root, left + 6, CELL // 2, left + CELL - 6, CELL // 2, "pause")


def _stroke(root: ET.Element, x1: int, y1: int, x2: int, y2: int, kind: str) -> None:
    ET.SubElement(root, "line", {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2), "class": kind})
