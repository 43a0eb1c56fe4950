"""Text that came from elsewhere, made fit to be shown, and values made fit for a TOML file."""

from collections.abc import Sequence

Scalar = str | bool | int | float


def printable(text: str, limit: int) -> str:
    """Text from elsewhere, made fit for a log line or a page: one line, printable characters, at most `limit` of them."""
    head = text[: 4 * limit]
    return " ".join("".join(c if c.isprintable() else " " for c in head).split())[:limit]


def toml_value(value: Scalar | Sequence[Scalar]) -> str:
    """A value as TOML writes it; in strings no quote stands inside, which Flower's `--node-config` could not bear."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{"".join(map(_toml_character, value))}"'
    return repr(value) if isinstance(value, int | float) else f"[{', '.join(map(toml_value, value))}]"


def _toml_character(character: str) -> str:
    """Quotes and control characters are escaped by number."""
    if character == "\\":
        return "\\\\"
    return f"\\u{ord(character):04X}" if character == '"' or ord(character) < 32 or ord(character) == 127 else character
