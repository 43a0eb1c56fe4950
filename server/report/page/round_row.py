"""One round, as the page's sections read it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Round:
    """One round. `mcc` is the external value, for looking only."""

    number: int
    seconds: float | None
    up: float | None
    down: float | None
    sites: str
    there: tuple[str, ...]  # the sites whose update was used, where their names are known
    failed: tuple[str, ...]
    failures: tuple[str, ...]
    paused: tuple[str, ...]
    mcc: float | None
    loss: float | None
