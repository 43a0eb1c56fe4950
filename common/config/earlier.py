"""Translates configurations of earlier versions (in run folders, releases and requests) to today's keys.

Each change of a key has its line here, and is refused nowhere: an old run opens.
"""

from typing import Any

from common.errors import ConfigError

# Of a section's key: the terms (`common.objectives`) that have it now, and under which name.
TERMS_OF_OBJECTIVE = {
    "dino": (("dino",), "weight"),
    "ibot": (("ibot",), "weight"),
    "koleo": (("koleo",), "weight"),
    "classification": (("classification",), "weight"),
    "class_balance": (("classification",), "class_balance"),
    "label_smoothing": (("classification",), "label_smoothing"),
    "center_momentum": (("dino", "ibot"), "center_momentum"),
}
CONSISTENCY = 0.3  # what privacy.consistency was where a private run did not name it
# Keys of [model] that stand beside the adapter's name since it may be one of several kinds: earlier, today.
ADAPTER_KEYS = {"rank": "rank", "alpha": "alpha", "targets": "targets", "lora_factor": "factor"}
# Those that an adapter was given, and did not read.
_UNREAD = {"bottleneck": ("alpha", "targets")} | dict.fromkeys(("bitfit", "head", "full"), ("rank", "alpha", "targets"))
TASK_KEYS = ("classes", "label")  # stood in [data] while there was one task


def of_today(table: dict[str, Any]) -> dict[str, Any]:
    """The table with every earlier key under its present name; one without earlier keys is returned as it is.

    Raises:
        ConfigError: a key stands there under both names.
    """
    if not isinstance(table, dict):  # what JSON holds may be anything; `build` refuses it
        return table
    return _gradients(_task_of_data(_loss_terms(_with_adapter(table))))


def _loss_terms(table: dict[str, Any]) -> dict[str, Any]:
    """Weights of loss terms were keys of `objective`, and `privacy.consistency`, which ran in private rounds alone."""
    objective, privacy = (_section(table, name) for name in ("objective", "privacy"))
    earlier = [key for key in TERMS_OF_OBJECTIVE if key in objective]
    if not (earlier or "consistency" in privacy) or not isinstance(objective.get("terms", {}), dict):
        return table
    terms = {name: dict(term) if isinstance(term, dict) else term for name, term in _section(objective, "terms").items()}
    if "terms" not in objective and privacy.get("enabled") is True:
        terms["consistency"] = {"weight": CONSISTENCY}
    for key in earlier:
        names, setting = TERMS_OF_OBJECTIVE[key]
        for name in names:
            _section(terms, name, make=True)[setting] = objective[key]
    if "consistency" in privacy:
        weight = privacy["consistency"] if privacy.get("enabled") is True else 0.0
        _section(terms, "consistency", make=True)["weight"] = weight
    kept = {key: value for key, value in objective.items() if key not in earlier}
    changed = {"objective": kept | {"terms": terms}}
    if "consistency" in privacy:
        changed["privacy"] = {key: value for key, value in privacy.items() if key != "consistency"}
    return table | changed


def _with_adapter(table: dict[str, Any]) -> dict[str, Any]:
    """`model.rank`, `alpha`, `targets` and `lora_factor` as settings of `model.adapter`."""
    model = table.get("model")
    if not isinstance(model, dict) or not ADAPTER_KEYS.keys() & model.keys():
        return table
    named = model.get("adapter", "lora")
    adapter = {"name": "lora", **named} if isinstance(named, dict) else {"name": named}
    told = {key: value for key, value in model.items() if key in ADAPTER_KEYS}
    if adapter["name"] != "lora" and told.get("lora_factor") == "both":  # LoRA's alone; any other value of it is refused
        del told["lora_factor"]
    unread = _UNREAD.get(str(adapter["name"]), ())
    adapter |= {ADAPTER_KEYS[key]: value for key, value in told.items() if key not in unread}
    return {**table, "model": {key: value for key, value in model.items() if key not in ADAPTER_KEYS} | {"adapter": adapter}}


def _task_of_data(table: dict[str, Any]) -> dict[str, Any]:
    """`data.classes` and `data.label` belong to the task; a task without a name is a classification, the only one there was."""
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


def _gradients(table: dict[str, Any]) -> dict[str, Any]:
    """`vmap` was a way to the patients' gradients; another gives the same, and faster."""
    privacy = _section(table, "privacy")
    return table | {"privacy": privacy | {"gradients": "batched"}} if privacy.get("gradients") == "vmap" else table


def _section(table: dict[str, Any], name: str, *, make: bool = False) -> dict[str, Any]:
    """A table in the table; an empty one where there is none, or something else that `build` will refuse."""
    found = table.setdefault(name, {}) if make else table.get(name, {})
    return found if isinstance(found, dict) else {}
