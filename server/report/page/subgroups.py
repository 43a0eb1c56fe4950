"""Groups of patients, and whether any fares otherwise than the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.report.page.comparison import Row, measured
from server.report.page.values import patients_text, table, whole

KINDS = {"site": "hospital", "cluster": "kind of images", "age": "age", "sex": "sex"}


@dataclass(frozen=True)
class Kind:
    """One way to divide the patients."""

    name: str
    rows: tuple[Row, ...]


def read(groups: Mapping[str, Any]) -> tuple[Kind, ...]:
    """The divisions that the report has, the usual ones first."""
    order = [*(kind for kind in KINDS if kind in groups), *(kind for kind in groups if kind not in KINDS)]
    kinds = (
        Kind(KINDS.get(kind, kind), tuple(_row(name, entry) for name, entry in table(groups[kind]).items())) for kind in order
    )
    return tuple(kind for kind in kinds if kind.rows)


def _row(name: str, entry: Any) -> Row:
    n = whole(table(entry).get("n"))
    return measured(name, "" if n is None else patients_text(n), entry)
