"""How a frozen dataclass is filled from plain values (TOML, JSON), and refused by the dotted name of what is wrong.

A field may hold one of several kinds, told apart by `name` (a tagged union), or several of them, each under its name: so the
settings of a mechanism stand beside the mechanism, and a configuration knows it by a line in a registry. A kind is a frozen
dataclass with a class attribute `name`.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from common.errors import ConfigError

KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
    list: "a list",
    dict: "a table",
}


@dataclass(frozen=True)
class OneOf:
    """Rule of a field that holds one kind: `strategy = "fedavg"`, or a table with `name` and the kind's settings.

    A table without `name` is of the kind `default`, so that `--set strategy.rate=2` needs no more.
    """

    kinds: Mapping[str, type]
    default: str


@dataclass(frozen=True)
class ManyOf:
    """Rule of a field that holds a tuple with one of each kind: a table of tables by name. What is not named has its defaults."""

    kinds: Mapping[str, type]


@dataclass(frozen=True)
class Rows:
    """Rule of a field that holds a tuple of dataclasses: a list of names of `known` ones, and of tables.

    A table that has the name of a known one changes what it names and keeps the rest.
    """

    kind: type
    known: Mapping[str, Any]


def ranged(default: float, low: float, high: float) -> Any:
    """A number field that accepts `low <= value <= high`."""
    return field(default=default, metadata={"low": low, "high": high})


def choice(default: str, *choices: str) -> Any:
    """A text field that accepts one of `choices`."""
    return field(default=default, metadata={"choices": choices})


def registry(*kinds: type) -> dict[str, type]:
    """The kinds by their `name`."""
    return {kind.name: kind for kind in kinds}  # type: ignore[attr-defined]


def one_of(default: str, kinds: Mapping[str, type]) -> Any:
    """A field that holds one of `kinds`; by default the one named `default` with its own defaults."""
    return field(default_factory=kinds[default], metadata={"rule": OneOf(kinds, default)})


def many_of(kinds: Mapping[str, type]) -> Any:
    """A field that holds one of each of `kinds`, as a tuple in the registry's order."""
    return field(default_factory=lambda: tuple(kind() for kind in kinds.values()), metadata={"rule": ManyOf(kinds)})


def rows(kind: type, known: Mapping[str, Any]) -> Any:
    """A field that holds a tuple of `kind`, each with a `name` of its own; by default none."""
    return field(default=(), metadata={"rule": Rows(kind, known)})


def build(kind: Any, table: Any, where: str = "") -> Any:
    """Fill the frozen dataclass `kind` from plain values; used for run and site configurations alike.

    Raises:
        ConfigError: names the dotted key, what was expected and what came.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where.rstrip('.') or 'configuration'}: expected a table, got {table!r}.")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in known:
            raise ConfigError(f"Unknown key '{name}'. Known here: {', '.join(sorted(known))}.")
        values[key] = _value(hints[key], known[key].metadata.get("rule"), value, name)
    return kind(**values)


def plain(config: Any) -> Any:
    """Nested plain values, from which `build` makes an equal configuration."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    return {item.name: _plain_field(getattr(config, item.name), item.metadata.get("rule")) for item in fields(config)}


def dotted_names(kind: Any, where: str = "") -> Iterator[str]:
    """Every key that `build` knows, sections included, such as `federation.rounds`; of a field with kinds the keys of all."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        name, rule = f"{where}{item.name}", item.metadata.get("rule")
        yield name
        if isinstance(rule, OneOf):
            yield from dict.fromkeys(key for one in rule.kinds.values() for key in dotted_names(one, f"{name}."))
        elif isinstance(rule, ManyOf):
            for tag, one in rule.kinds.items():
                yield f"{name}.{tag}"
                yield from dotted_names(one, f"{name}.{tag}.")
        elif is_dataclass(hints[item.name]):
            yield from dotted_names(hints[item.name], f"{name}.")


def check_ranges(config: Any, where: str = "") -> None:
    """Hold every field against the range or choices of its metadata, sections and kinds included."""
    for item in fields(config):
        value, name, rule = getattr(config, item.name), f"{where}{item.name}", item.metadata
        if isinstance(rule.get("rule"), ManyOf):
            for one in value:
                check_ranges(one, f"{name}.{one.name}.")
        elif is_dataclass(value):
            check_ranges(value, f"{name}.")
        if "low" in rule:
            for number in value if isinstance(value, tuple) else (value,):
                if not rule["low"] <= number <= rule["high"]:
                    raise ConfigError(f"{name}: expected a number from {rule['low']} to {rule['high']}, got {number}.")
        if "choices" in rule and value not in rule["choices"]:
            raise ConfigError(f"{name}: expected one of {', '.join(rule['choices'])}; got {value!r}.")


def _value(hint: Any, rule: object, value: Any, name: str) -> Any:
    """One field, by its rule or by its annotation."""
    if isinstance(rule, OneOf):
        return _one(rule, value, name)
    if isinstance(rule, ManyOf):
        return _many(rule.kinds, value, name)
    if isinstance(rule, Rows):
        return _rows(rule, value, name)
    return build(hint, value, f"{name}.") if is_dataclass(hint) else _convert(hint, value, name)


def _one(rule: OneOf, value: Any, name: str) -> Any:
    """The kind that a name, or a table's `name`, asks for."""
    table = {"name": value} if isinstance(value, str) else value
    tag = table.get("name", rule.default) if isinstance(table, dict) else None
    if not isinstance(tag, str) or tag not in rule.kinds:
        got = repr(value) if tag is None else repr(tag)
        raise ConfigError(f"{name}: expected one of {', '.join(rule.kinds)}, or a table whose `name` is one; got {got}.")
    settings = {key: item for key, item in table.items() if key != "name"}
    for key in settings:
        _require_setting(rule.kinds, tag, key, name)
    return build(rule.kinds[tag], settings, f"{name}.")


def _require_setting(kinds: Mapping[str, type], tag: str, key: str, name: str) -> None:
    """Refuse a setting that the kind does not have, and name the kinds that do."""
    settings = {each: sorted(f.name for f in fields(kind)) for each, kind in kinds.items()}
    if key not in settings[tag]:
        others = [each for each in kinds if key in settings[each]]
        hint = f" {', '.join(others)} {'have' if len(others) > 1 else 'has'} it." if others else ""
        known = ", ".join(settings[tag]) or "no settings"
        anew = f'Take it out, or begin anew with {name} = {{name = "{tag}"}}.'
        raise ConfigError(f"Unknown key '{name}.{key}'. Known here: {known} ({name} is {tag}).{hint} {anew}")


def _many(kinds: Mapping[str, type], value: Any, name: str) -> tuple[Any, ...]:
    """One of each kind, by the tables that are there."""
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a table, got {value!r}.")
    for tag in value:
        if tag not in kinds:
            raise ConfigError(f"Unknown key '{name}.{tag}'. Known here: {', '.join(sorted(kinds))}.")
    return tuple(build(kind, value.get(tag, {}), f"{name}.{tag}.") for tag, kind in kinds.items())


def _rows(rule: Rows, value: Any, name: str) -> tuple[Any, ...]:
    """Each row by its name alone, or by a table."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name}: expected a list such as {list(rule.known)}, got {value!r}.")
    found = tuple(_row(rule, item, name) for item in value)
    if len({row.name for row in found}) != len(found):
        raise ConfigError(f"{name}: expected each once, got {', '.join(row.name for row in found)}.")
    return found


def _row(rule: Rows, item: Any, name: str) -> Any:
    """A known row, with what a table changes of it, or a row of the table's own."""
    table = {"name": item} if isinstance(item, str) else item
    tag = table.get("name") if isinstance(table, dict) else None
    if not isinstance(tag, str) or (isinstance(item, str) and tag not in rule.known):
        settings = ", ".join(f.name for f in fields(rule.kind))
        raise ConfigError(f"{name}: expected {', '.join(rule.known)}, or a table of {settings}; got {item!r}.")
    base = plain(rule.known[tag]) if tag in rule.known else {}
    return build(rule.kind, {**base, **table}, f"{name}.")


def _plain_field(value: Any, rule: object) -> Any:
    if isinstance(rule, OneOf):
        return {"name": value.name, **plain(value)}
    if isinstance(rule, ManyOf):
        return {one.name: plain(one) for one in value}
    if isinstance(rule, Rows):
        return [plain(one) for one in value]
    return plain(value)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check one value against its annotation; lists become tuples, whole numbers may stand for floats."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    origin = get_origin(hint)
    if origin is types.UnionType:
        kinds = get_args(hint)
        if value is None and type(None) in kinds:
            return None
        return _convert(kinds[isinstance(value, list | tuple) and get_origin(kinds[1]) is tuple], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(hint)[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin is None and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{name}: expected {_kind(hint)}, got {value!r}.")


def _kind(hint: Any) -> str:
    """In TOML's words, which are the user's; Python's where TOML has none."""
    kind = get_origin(hint) or hint
    return KINDS.get(kind, str(getattr(kind, "__name__", kind)))
