"""Configurations of earlier versions, as run folders, releases and requests still hold them, in the words of today.

Each change of a key has its line here, and is refused nowhere: an old run opens.
"""

from typing import Any

# Keys of [model] that stand beside the adapter's name since it may be one of several kinds: earlier, today.
_ADAPTER_KEYS = {"rank": "rank", "alpha": "alpha", "targets": "targets", "lora_factor": "factor"}
# Those that an adapter was told, and did not read.
_UNREAD = {"bottleneck": ("alpha", "targets")} | dict.fromkeys(("bitfit", "head", "full"), ("rank", "alpha", "targets"))


def of_today(table: dict[str, Any]) -> dict[str, Any]:
    """The table with every earlier key under its present name; one that has none is returned as it is."""
    return _with_adapter(table)


def _with_adapter(table: dict[str, Any]) -> dict[str, Any]:
    """`model.rank`, `alpha`, `targets` and `lora_factor` as settings of `model.adapter`."""
    model = table.get("model") if isinstance(table, dict) else None  # what JSON holds may be anything
    if not isinstance(model, dict) or not _ADAPTER_KEYS.keys() & model.keys():
        return table
    named = model.get("adapter", "lora")
    adapter = {"name": "lora", **named} if isinstance(named, dict) else {"name": named}
    told = {key: value for key, value in model.items() if key in _ADAPTER_KEYS}
    if adapter["name"] != "lora" and told.get("lora_factor") == "both":  # LoRA's alone; any other value of it is refused
        del told["lora_factor"]
    unread = _UNREAD.get(str(adapter["name"]), ())
    adapter |= {_ADAPTER_KEYS[key]: value for key, value in told.items() if key not in unread}
    return {**table, "model": {key: value for key, value in model.items() if key not in _ADAPTER_KEYS} | {"adapter": adapter}}
