"""Text that came from elsewhere, made fit to be shown."""


def printable(text: str, limit: int) -> str:
    """Text from elsewhere, made fit for a log line or a page: one line, printable characters, at most `limit` of them."""
    head = text[: 4 * limit]
    return " ".join("".join(c if c.isprintable() else " " for c in head).split())[:limit]
