"""Configurations of earlier versions, as run folders, releases and requests still hold them, in the words of today.

Each change of a key has its line here, and is refused nowhere: an old run opens.
"""

from typing import Any

from common.errors import ConfigError

TASK_KEYS = ("classes", "label")  # stood in [data] while there was one task


def of_today(table: dict[str, Any]) -> dict[str, Any]:
    """The table with every earlier key under its present name; one that has none is returned as it is.

    Raises:
        ConfigError: a key stands there under both names.
    """
    return _task_of_data(table)


def _task_of_data(table: dict[str, Any]) -> dict[str, Any]:
    """`data.classes` and `data.label` belong to the task; a task without a name is the one that there was."""
    data, task = table.get("data"), table.get("task", {})
    moved = {key: data[key] for key in TASK_KEYS if key in data} if isinstance(data, dict) else {}
    if isinstance(task, str) and moved:
        task = {"name": task}
    if not isinstance(task, dict) or not (moved or task):
        return table
    for key in moved.keys() & task.keys():
        raise ConfigError(f"data.{key} is task.{key} today, and both are given. Keep task.{key}.")
    changed = {**table, "task": {"name": "classification"} | task | moved}
    if moved:
        changed["data"] = {key: value for key, value in table["data"].items() if key not in TASK_KEYS}
    return changed
