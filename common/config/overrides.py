"""`--set key=value`: one setting laid over the table of a configuration file, in the words of today or of earlier versions."""

import tomllib
from collections.abc import Collection
from typing import Any

from common.config.earlier import ADAPTER_KEYS, of_today
from common.errors import ConfigError

# Names that stood alone in earlier versions, and are no unique names today.
EARLIER_NAMES = {"lora_factor": "model.lora_factor", "center_momentum": "objective.center_momentum"}


def lay_over(table: dict[str, Any], setting: str, known: Collection[str]) -> dict[str, Any]:
    """The table with one setting changed.

    Args:
        table: in the words of today (`of_today`).
        setting: key=value; the value is TOML, or bare text. A table as value takes the place of what was there; the name of a
            kind keeps the settings beside it.
        known: every dotted key of today.

    Raises:
        ConfigError: no key=value, or a key that is not known or not unique.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected key=value, such as federation.rounds=5.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        value = text
    parts = full_key(key.strip(), known).split(".")
    if parts[:-1] == ["objective", "terms"] and not isinstance(value, dict):
        parts.append("weight")  # a term by its name alone: dino=0
    change: Any = value
    for part in reversed(parts):
        change = {part: change}
    if isinstance(value, dict):
        return _merged(table, change, setting, len(parts))
    return _merged(table, of_today(_in_context(change, table)), setting)


def full_key(key: str, known: Collection[str]) -> str:
    """The dotted key for a name that stands alone, where only one section has it."""
    if "." in key or key in known:
        return key
    if key in EARLIER_NAMES:
        return EARLIER_NAMES[key]
    owners = [name for name in known if name.rpartition(".")[2] == key]
    if len(owners) == 1:
        return owners[0]
    hint = f" Write one of {', '.join(owners)}." if owners else ""
    raise ConfigError(f"Unknown key '{key}'.{hint} Keys are section.name, such as federation.rounds.")


def _in_context(change: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The change with what the meaning of an earlier key depends on: which adapter there is, whether the run is private.

    Nor does a task's setting that stands alone change which task it is.
    """
    model, privacy, task = change.get("model"), change.get("privacy"), change.get("task")
    if isinstance(task, dict) and "name" in _section(table, "task"):
        return {"task": {"name": table["task"]["name"], **task}}
    if isinstance(model, dict) and ADAPTER_KEYS.keys() & model.keys():
        adapter = _section(table, "model").get("adapter", "lora")
        return {"model": {**model, "adapter": adapter.get("name", "lora") if isinstance(adapter, dict) else adapter}}
    if isinstance(privacy, dict) and "consistency" in privacy:
        return {"privacy": {**privacy, "enabled": _section(table, "privacy").get("enabled", False)}}
    return change


def _merged(table: dict[str, Any], change: dict[str, Any], setting: str, depth: int = 0) -> dict[str, Any]:
    """Both, the change first; `depth` tables down the change takes the place of what was there (0: nowhere)."""
    after = dict(table)
    for key, value in change.items():
        old = after.get(key)
        if isinstance(old, dict) and isinstance(value, str):  # the name of a kind keeps the settings beside it
            after[key] = {**old, "name": value}
        elif isinstance(value, dict) and depth != 1:
            inner = {"name": old} if isinstance(old, str) else {} if old is None else old
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: '{key}' is no section.")
            after[key] = _merged(inner, value, setting, max(0, depth - 1))
        else:
            after[key] = value
    return after


def _section(table: dict[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name)
    return found if isinstance(found, dict) else {}
