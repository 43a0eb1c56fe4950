"""Lines of JSON, each with the hash of the one before: a line damaged, changed, moved or missing in the middle is noticed."""

import hashlib
import json
from typing import Any

START = "0" * 64  # stands for the hash before the first line


def link(head: str, content: dict[str, Any]) -> tuple[str, str]:
    """Chain one more line on.

    Args:
        head: hash of the line before.
        content: the line's fields, as JSON has them.

    Returns:
        The line, without its newline, and its hash.
    """
    digest = _hash(head, content)
    return _text({**content, "hash": digest}), digest


def follow(head: str, line: str) -> tuple[dict[str, Any], str]:
    """Check one line against the one before; returns its content and its hash.

    Raises:
        ValueError: it is not as it was written, or not in its place.
    """
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    if _text(content) != line:  # JSON would forgive a changed space, or a carriage return in the place of a newline
        raise ValueError("its text is not as `link` writes it")
    digest = content.pop("hash", None)
    if digest != _hash(head, content):
        raise ValueError("its hash does not fit the lines before it")
    return content, digest


def _hash(before: str, content: dict[str, Any]) -> str:
    return hashlib.sha256(f"{before} {_text(content)}".encode()).hexdigest()


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
