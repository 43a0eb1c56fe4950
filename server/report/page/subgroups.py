"""Subgroups of patients, each compared with all others."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.report.evaluation import Evaluation
from server.report.page.comparison import Row, measured
from server.report.page.values import patients_text

KINDS = {"site": "hospital", "cluster": "kind of images", "age": "age", "sex": "sex"}


@dataclass(frozen=True)
class Kind:
    """One way to divide the patients."""

    name: str
    rows: tuple[Row, ...]


def read(groups: Mapping[str, Mapping[str, Evaluation | None]]) -> tuple[Kind, ...]:
    """The divisions that the report has, the usual ones first."""
    order = [*(kind for kind in KINDS if kind in groups), *(kind for kind in groups if kind not in KINDS)]
    kinds = (Kind(KINDS.get(kind, kind), tuple(_row(name, entry) for name, entry in groups[kind].items())) for kind in order)
    return tuple(kind for kind in kinds if kind.rows)


def _row(name: str, result: Evaluation | None) -> Row:
    n = result.n if result else None
    return measured(name, "" if n is None else patients_text(n), result)
