"""Provenance of a result: code, weights, data, configuration."""

from collections.abc import Mapping
from typing import Any

from server.report.page.values import NOTHING, number


def pairs(table: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested table as (dotted name, text)."""
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += pairs(value, f"{prefix}{key} · ")
        else:
            text = number(value, 4) if isinstance(value, float) else NOTHING if value is None else str(value)
            found.append((f"{prefix}{key}", text))
    return tuple(found)
