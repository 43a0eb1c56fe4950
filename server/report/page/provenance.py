"""Where a result comes from: code, weights, data, configuration."""

import json
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


def config_text(config: Any) -> str:
    """The run's configuration, indented, whether it came as JSON text or as a table."""
    found = config_table(config)
    return json.dumps(found, indent=2, ensure_ascii=False) if found else config if isinstance(config, str) else ""


def config_table(config: Any) -> Mapping[str, Any]:
    """The run's configuration as a table; empty where it is none."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError):
            return {}
    return config if isinstance(config, Mapping) else {}
