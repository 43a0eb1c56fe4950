"""RUN/status.json: what the run and each of its sites are doing now, for whoever watches.

    {"state": "waiting" | "training" | "calibrating" | "evaluating" | "finished" | "failed", "round": 3, "rounds": 20,
     "since": when this state and round began, "updated": ...,
     "sites": {NAME: {"state": "asked" | "answered" | "failed" | "paused", "last_seen": time of its last reply or null,
                      "seconds": that this took or null, "bytes_up", "bytes_down", "failures": over the whole run,
                      "reason": of the last failure or pause, else ""}}}

Times are ISO 8601 in UTC. It is for looking: a write that fails ends nothing.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import write_atomic

STATUS_NAME = "status.json"
PAUSE = 1.0  # seconds between two writes, but for a change of the run's own state


@dataclass
class SiteStatus:
    """The status of one site."""

    state: str = "asked"
    last_seen: str | None = None
    seconds: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    failures: int = 0
    reason: str = ""


class Progress:
    """Keeps status.json up to date.

    Args:
        run: the run folder; None: nothing is written.
        rounds: of the whole run.
        resumed: sites' counts go on from those of the file that is there.
    """

    def __init__(self, run: Path | None = None, rounds: int = 0, *, resumed: bool = False) -> None:
        self._path = run / STATUS_NAME if run else None
        self.state, self.round, self.rounds, self.since = "waiting", 0, rounds, _now()
        self.sites = _read_sites(self._path) if resumed and self._path else {}
        self._written, self._dirty = 0.0, True

    def set_state(self, state: str, number: int | None = None) -> None:
        """The run's own state has changed."""
        number = self.round if number is None else number
        if (state, number) != (self.state, self.round):
            self.since = _now()
        self.state, self.round = state, number
        self._write(now=True)

    def asked(self, name: str, bytes_down: int) -> None:
        """A request goes out to a site."""
        site = self._site(name)
        site.state, site.reason = "asked", ""
        site.bytes_down += bytes_down

    def answered(self, name: str, seconds: float, bytes_up: int) -> None:
        """A site's reply has come, good or bad; nobody has judged it yet."""
        site = self._site(name)
        site.state, site.last_seen, site.seconds = "answered", _now(), round(seconds, 3)
        site.bytes_up += bytes_up

    def failed(self, name: str, reason: str) -> None:
        """A site's reply was refused, or did not come."""
        site = self._site(name)
        site.state, site.reason = "failed", reason
        site.failures += 1

    def paused(self, name: str, reason: str) -> None:
        """A site is not asked in this round."""
        site = self._site(name)
        site.state, site.reason = "paused", reason

    def tick(self) -> None:
        """Write what has changed, if the last write is long enough ago."""
        self._write(now=False)

    def _site(self, name: str) -> SiteStatus:
        self._dirty = True
        return self.sites.setdefault(name, SiteStatus())

    def _write(self, *, now: bool) -> None:
        if self._path is None or not (now or (self._dirty and time.monotonic() - self._written >= PAUSE)):
            return
        table = {"state": self.state, "round": self.round, "rounds": self.rounds, "since": self.since, "updated": _now()}
        sites = {name: asdict(site) for name, site in sorted(self.sites.items())}
        with suppress(OSError):
            write_atomic(self._path, json.dumps({**table, "sites": sites}, indent=1).encode())
        self._written, self._dirty = time.monotonic(), False


def _read_sites(path: Path) -> dict[str, SiteStatus]:
    """The sites of an earlier file; none where it is damaged."""
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        found = {name: SiteStatus(**site) for name, site in table["sites"].items()}
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return {}
    counts = ("bytes_up", "bytes_down", "failures")
    good = all(type(getattr(site, f.name)) is int for site in found.values() for f in fields(site) if f.name in counts)
    return found if good else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
