"""Tells what happens in a run: each event goes into events.jsonl first, and all else that is told follows from the events.

RUN/events.jsonl   the log (`server.events.log`)
RUN/status.json    what the run and its sites do now (`server.events.status`), written as events come, but once a second at most.
                   It is for looking: a write that fails ends nothing.
"""

import json
import time
from contextlib import suppress
from logging import WARNING
from pathlib import Path

from flwr.supercore import log

from common.errors import BUDGET_SPENT
from common.files import write_atomic
from common.run_folder import STATUS_NAME
from server.events import rounds, status
from server.events.kinds import (
    AFTER_FAILURES,
    AT_THE_SITE,
    OF_A_ROUND,
    TRAIN,
    Answered,
    Asked,
    Began,
    BudgetSpent,
    Ended,
    Event,
    Kept,
    Paused,
    Refused,
    Resumed,
    StateChanged,
)
from server.events.log import EventLog, as_text, parse, read_events
from server.events.rounds import RoundRecord, Rounds
from server.events.status import RunStatus, SiteStatus
from server.events.words import level, said

PAUSE = 1.0  # seconds between two writes, but for a change of the run's own state
LASTING = (Kept, Ended, Began, Resumed)  # on the disk before anything follows


class Progress:
    """The record of one run, while it is made.

    Args:
        run: the run folder; None: nothing is written. It is not touched before the first event.
        rounds: that the run is to have.
        resumed: the log that is there goes on; else it is begun anew.

    Raises:
        FederationError: the log that is there is damaged.
    """

    def __init__(self, run: Path | None = None, rounds: int = 0, *, resumed: bool = False) -> None:
        self._path = run / STATUS_NAME if run else None
        self._planned, self._written, self._dirty = rounds, 0.0, True
        self.status, self.rounds, self.torn = RunStatus(rounds=rounds), Rounds(), False
        keep = self._take_up(run) if run and resumed else 0
        self._log = EventLog(run, keep) if run else None
        self._begun = keep > 0

    def _take_up(self, run: Path) -> int:
        """The state that an earlier log leads to; its whole bytes."""
        found = read_events(run)
        self.status, self.rounds, self.torn = status.status_of(found.entries), rounds.rounds_of(found.entries), found.torn
        if not found.entries:
            log(WARNING, "The run has no events.jsonl: what it tells begins now. Its finished rounds are in rounds.jsonl.")
        return found.whole

    def tell(self, event: Event) -> None:
        """Write an event down, and follow it.

        Raises:
            FederationError: it cannot be written.
        """
        if not self._begun:
            self._begun = True
            self.tell(Began(self._planned))
        text = as_text(event)
        entry = parse(text)  # what is read again later is what is followed now
        if self._log:
            self._log.append(text, sync=isinstance(event, LASTING))
        self.status, self.rounds = status.after(self.status, entry), rounds.after(self.rounds, entry.event)
        self._dirty = True
        if loud := level(event):
            log(loud, "%s", said(event))

    def close(self) -> None:
        """Close the log."""
        if self._log:
            self._log.close()

    @property
    def state(self) -> str:
        """What the run does."""
        return self.status.state

    @property
    def round(self) -> int:
        """The round of which this is so."""
        return self.status.round

    @property
    def sites(self) -> dict[str, SiteStatus]:
        """What the sites do."""
        return dict(self.status.sites)

    def set_state(self, state: str, number: int | None = None) -> None:
        """The run's own state has changed."""
        number = self.round if number is None else number
        if (state, number) != (self.state, self.round) or not self._begun:
            self.tell(StateChanged(state, number))
        self._write(now=self._dirty)

    def ended(self, state: str, reason: str = "") -> None:
        """The run is over: finished or failed."""
        self.tell(Ended(state, reason))
        self._write(now=True)

    def resumed(self, after: int, trained: dict[str, int], redone: int) -> None:
        """The run goes on after a round, with what later ones may have cost."""
        self.tell(Resumed(after, self._planned, trained, redone, self.torn))

    def kept(self, number: int) -> RoundRecord:
        """The round's checkpoint is on the disk; its record."""
        self.tell(Kept(number))
        return self.rounds.done[-1]

    def asked(self, name: str, bytes_down: int, what: str = TRAIN, number: int | None = None) -> None:
        """A request goes out to a site."""
        self.tell(Asked(*self._where(what, number), name, what, bytes_down))

    def answered(self, name: str, seconds: float, bytes_up: int, what: str = TRAIN, number: int | None = None) -> None:
        """A site's reply has come, good or bad; nobody has judged it yet."""
        self.tell(Answered(*self._where(what, number), name, what, seconds, bytes_up))

    def failed(self, name: str, reason: str, rule: str = AT_THE_SITE, what: str = TRAIN, number: int | None = None) -> None:
        """A site's reply was refused, or did not come."""
        where = self._where(what, number)
        spent = reason == BUDGET_SPENT
        self.tell(BudgetSpent(*where, name, what) if spent else Refused(*where, name, what, rule, reason))

    def paused(self, name: str, reason: str, why: str = AFTER_FAILURES, number: int | None = None) -> None:
        """A site is not asked in this round."""
        self.tell(Paused(self.round if number is None else number, name, why, reason))

    def tick(self) -> None:
        """Write what has changed, if the last write is long enough ago."""
        self._write(now=False)

    def _where(self, what: str, number: int | None) -> tuple[int, int]:
        """Round and attempt of an exchange."""
        if what in OF_A_ROUND and self.rounds.open:
            return self.rounds.open.number, self.rounds.open.attempts
        return self.round if number is None else number, 0

    def _write(self, *, now: bool) -> None:
        if self._path is None or not (now or (self._dirty and time.monotonic() - self._written >= PAUSE)):
            return
        with suppress(OSError):
            write_atomic(self._path, json.dumps(status.as_table(self.status), indent=1).encode())
        self._written, self._dirty = time.monotonic(), False
