"""Configurations of earlier versions, as run folders, releases and requests still hold them, in the words of today.

Each change of a key has its line here, and is refused nowhere: an old run opens.
"""

from typing import Any


def of_today(table: dict[str, Any]) -> dict[str, Any]:
    """The table with every earlier key under its present name; one that has none is returned as it is."""
    return table
