"""How a frozen dataclass is filled from plain values (TOML, JSON), and refused by the dotted name of what is wrong."""

import types
from dataclasses import field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from common.errors import ConfigError


def ranged(default: float, low: float, high: float) -> Any:
    """A number field that accepts `low <= value <= high`."""
    return field(default=default, metadata={"low": low, "high": high})


def choice(default: str, *choices: str) -> Any:
    """A text field that accepts one of `choices`."""
    return field(default=default, metadata={"choices": choices})


def build(kind: Any, table: Any, where: str = "") -> Any:
    """Fill the frozen dataclass `kind` from plain values; used for run and site configurations alike.

    Raises:
        ConfigError: names the dotted key, what was expected and what came.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where or 'configuration'}: expected a table, got {table!r}.")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in known:
            raise ConfigError(f"Unknown key '{name}'. Known here: {', '.join(sorted(known))}.")
        hint = hints[key]
        values[key] = build(hint, value, f"{name}.") if is_dataclass(hint) else _convert(hint, value, name)
    return kind(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check one value against its annotation; lists become tuples, whole numbers may stand for floats."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    origin = get_origin(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(get_args(hint)[0], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(hint)[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin is None and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{name}: expected {getattr(hint, '__name__', hint)}, got {value!r}.")


def check_ranges(config: Any, where: str = "") -> None:
    """Hold every field against the range or choices of its metadata, sections included."""
    for item in fields(config):
        value, name, rule = getattr(config, item.name), f"{where}{item.name}", item.metadata
        if is_dataclass(value):
            check_ranges(value, f"{name}.")
        if "low" in rule and not rule["low"] <= value <= rule["high"]:
            raise ConfigError(f"{name}: expected a number from {rule['low']} to {rule['high']}, got {value}.")
        if "choices" in rule and value not in rule["choices"]:
            raise ConfigError(f"{name}: expected one of {', '.join(rule['choices'])}; got {value!r}.")
