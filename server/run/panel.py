"""Asks the sites for sums over patients that never trained, after the last round.

No site's answer ends a run. One that does not answer, refuses, or answers nonsense is named and weighs nothing.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType
from flwr.serverapp import Grid
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.calibration import CalibrationRequest, form, read_sums, write_asked
from common.messages.round import SiteReply, pack_arrays, record_bytes
from common.models.arrays import Arrays
from server.strategy.aggregation import judge_status
from server.strategy.messaging import exchange
from server.strategy.refusal import content_of, refusal_of
from server.strategy.round_loop import EXPIRY_SLACK, FedMRIAvg
from server.strategy.round_state import Address

CALIBRATION = "calibration"  # what the events call it
Found = dict[str, tuple[SiteReply, Arrays]]  # by site: its status, its sums


def total(found: Found, name: str) -> NDArray[np.float64]:
    """The sum over sites, in the order of their names, so that equal answers give equal bits."""
    return np.asarray(np.sum([found[site][1][name].astype(np.float64) for site in sorted(found)], axis=0))


def present(grid: Grid, strategy: FedMRIAvg, number: int) -> tuple[list[Address], dict[str, str]]:
    """The sites that can be asked after round `number`; and why others are not."""
    with suppress(FederationError):  # who is there is asked; fewer than a round needs are enough
        strategy.presence.wait(grid, number)
    there, resting = strategy.presence.called(grid, number)
    return list(there), {name: strategy.presence.closed.get(name, "left alone after too many failed rounds") for name in resting}


@dataclass(frozen=True)
class Panel:
    """Asks sites for sums, and notes who failed and why."""

    grid: Grid
    strategy: FedMRIAvg
    arrays: ArrayRecord
    config: RunConfig
    number: int
    failures: dict[str, str]

    def ask(
        self,
        there: Sequence[Address],
        asked: CalibrationRequest,
        moments: Arrays | None = None,
        candidates: Sequence[ArrayRecord] = (),
    ) -> Found:
        """One exchange: valid replies by site."""
        progress, timeout = self.strategy.progress, self.config.federation.round_timeout
        reference = pack_arrays(moments) if moments is not None else None
        messages = {address.name: self._message(address, asked, reference, candidates) for address in there}
        names = {id(message): name for name, message in messages.items()}
        size = sum(record_bytes(record) for record in (self.arrays, reference, *candidates))
        for name in messages:
            progress.asked(name, size, CALIBRATION, self.number)
        progress.set_state("calibrating", self.number)

        def note(request: Message, reply: Message, seconds: float) -> None:
            size = 0 if reply.has_error() else sum(record_bytes(r) for r in reply.content.array_records.values())
            progress.answered(names[id(request)], seconds, size, CALIBRATION, self.number)

        replies = exchange(self.grid, list(messages.values()), timeout, note, progress.tick)
        template = form(asked, self.config, scored=moments is not None)
        found = {}
        for name, message in messages.items():
            number = message.metadata.message_id
            told = self._judged(name, replies.came.get(number), replies.lost.get(number, ""), template)
            if told is not None:
                found[name] = told
        return found

    def refuse(self, name: str, reason: str, rule: str) -> None:
        """Note that a site has no part, and why."""
        self.failures[name] = reason
        self.strategy.progress.failed(name, reason, rule, CALIBRATION, self.number)

    def _judged(self, name: str, reply: Message | None, lost: str, template: Arrays) -> tuple[SiteReply, Arrays] | None:
        """One site's answer, or None; why is noted."""
        try:
            content = content_of(reply, lost, self.config.federation.round_timeout)
            return judge_status(content, self.number), read_sums(content, template)
        except Exception as error:  # whatever a hostile reply may set off in a parser, it costs that site its part only
            self.refuse(name, *refusal_of(error))
        return None

    def _message(
        self, address: Address, asked: CalibrationRequest, reference: ArrayRecord | None, candidates: Sequence[ArrayRecord]
    ) -> Message:
        task = replace(self.strategy.task, round=self.number, site=address.site)
        content = write_asked(task, self.arrays, asked, reference, candidates)
        ttl = self.config.federation.round_timeout + EXPIRY_SLACK
        return Message(content, address.node, MessageType.TRAIN, ttl=ttl, group_id=f"calibration-{asked.stage}")
