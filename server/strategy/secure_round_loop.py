"""Secure aggregation in Flower's message API: a round is four exchanges, and an attempt that loses too many sites begins anew."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.round import SiteReply, Task, record_bytes, write_task
from common.messages.secure_aggregation import (
    MASKED,
    SECURE,
    AdvertisedKeys,
    KeyShares,
    UnmaskShares,
    from_record,
    read_masked,
    request_hash,
    to_record,
)
from common.models.arrays import Arrays, flat, shaped
from common.privacy.site_level import noised_change
from common.secure.fixed_point import FixedPoint
from common.secure.threshold import sites_needed
from common.training.shared import shared, unmoved
from server.events.kinds import SECURE as SECURE_STAGE
from server.events.kinds import SUM_REFUSED, TRAIN
from server.strategy.aggregation import judge_status
from server.strategy.progress import Progress
from server.strategy.round_loop import EXPIRY_SLACK, FedMRIAvg
from server.strategy.round_state import Address
from server.strategy.secure_aggregation import SecureRound

Take = Callable[[int, RecordDict], None]  # a site's seat and its reply


class SecureAvg(FedMRIAvg):
    """Aggregation of which the server sees the sum only; arguments as `FedMRIAvg`'s, with the whole configuration."""

    def __init__(
        self, config: RunConfig, task: Task, template: Arrays, sites: Sequence[str] = (), progress: Progress | None = None
    ) -> None:
        super().__init__(config.federation, task, template, sites, config, progress)
        self.secure = config.secure

    def attempt(
        self, grid: Grid, number: int, arrays: ArrayRecord, timeout: float
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Ask all sites for one sum; nothing of an earlier attempt is used, its masks are gone."""
        self.begin_attempt(number, arrays, anew=True)
        there = dict(enumerate(self._seated(grid), start=1))
        threshold = sites_needed(len(there), self.secure, self.plan.min_sites)
        round_, there = self._handshake(grid, there, threshold, timeout)
        if round_ is None:
            return None, None
        length = self._length()

        def add(seat: int, content: RecordDict) -> None:
            round_.take_masked(seat, read_masked(content, 1 + length))

        there = self._exchange(grid, there, round_.ciphertexts_for, add, arrays, timeout)
        summed = dict(self.open.valid)
        if len(there) < threshold:
            return None, None
        there = self._exchange(grid, there, round_.unmask_for, _stage_reply(round_.take_unmask, UnmaskShares), None, timeout)
        if len(there) < threshold:
            return None, None
        self.open.valid = summed  # a site that went away after its vector came is in the sum
        try:
            change, weight = round_.result()
        except FederationError as error:
            for name in sorted(summed):
                self.progress.failed(name, str(error), SUM_REFUSED, SECURE_STAGE)
            return None, None
        whole = unmoved(shaped(change, shared(self.template, self.config, number)), self.template)
        change = flat(whole)
        if self.site_level.enabled:  # the sites have clipped, and weigh the same: the server could not tell
            change = noised_change(change, self.trained_mask(number), len(summed), self.site_level)
        return self.stepped((shaped(change, self.template), weight)), MetricRecord({})

    def _length(self) -> int:
        """Values of a change that leaves in the open round."""
        return sum(array.size for array in shared(self.template, self.config, self.open.number).values())

    def _handshake(
        self, grid: Grid, there: dict[int, Address], threshold: int, timeout: float
    ) -> tuple[SecureRound | None, dict[int, Address]]:
        """Keys and encrypted shares, begun anew without sites that were lost: every site must hold a share of every other."""
        request = request_hash(replace(self.task, round=self.open.number), self.open.current)
        length = self._length()
        while len(there) >= threshold:
            there = dict(enumerate(there.values(), start=1))
            fixed = FixedPoint.for_sites(len(there), self.secure.update_range, self.secure.max_weight)
            round_ = SecureRound(len(there), threshold, length, fixed, request)
            with_keys = self._exchange(
                grid, there, round_.keys_for, _stage_reply(round_.take_keys, AdvertisedKeys), None, timeout
            )
            if len(with_keys) < threshold:
                break
            there = self._exchange(grid, with_keys, round_.peers_for, _stage_reply(round_.take_shares, KeyShares), None, timeout)
            if len(there) == len(with_keys):
                return round_, there
        return None, there

    def _seated(self, grid: Grid) -> list[Address]:
        """The sites, one seat each.

        Raises:
            FederationError: several sites would share one node's memory.
        """
        addresses, _ = self.presence.called(grid, self.open.number)
        if len({address.node for address in addresses}) < len(addresses):
            raise FederationError(
                f"Secure aggregation needs a Flower node for each of the {len(addresses)} sites: set num-supernodes to it."
            )
        return addresses

    def _exchange(
        self,
        grid: Grid,
        there: dict[int, Address],
        asked: Callable[[int], Any],
        take: Take,
        sent: ArrayRecord | None,
        timeout: float,
    ) -> dict[int, Address]:
        """One stage: ask those who are still there, take their replies; returns the sites whose reply was valid."""
        state = self.open
        messages = {seat: self._ask(address, asked(seat), sent) for seat, address in there.items()}
        what = SECURE_STAGE if sent is None else TRAIN
        came = self.exchanged(grid, [(there[seat].name, message) for seat, message in messages.items()], timeout, what)
        stayed = {}
        for seat, message in messages.items():
            name = there[seat].name

            def read(content: RecordDict, seat: int = seat) -> SiteReply:
                reply = judge_status(content, state.number)
                take(seat, content)
                return reply

            if self.record_reply(name, came.get(message.metadata.message_id), read, what) is not None:
                stayed[seat] = there[seat]
        return stayed

    def payload_bytes(self, content: RecordDict) -> int:
        """Bytes that the stage itself moves: keys, ciphertexts, shares, and arrays where there are any."""
        record = content.config_records.get(SECURE) or ConfigRecord()
        values = [item for value in record.values() for item in (value if isinstance(value, list) else [value])]
        size = sum(len(value) if isinstance(value, bytes) else 8 for value in values)
        return size + sum(record_bytes(arrays) for name, arrays in content.array_records.items() if name in (MASKED, "arrays"))

    def _ask(self, address: Address, asked: Any, sent: ArrayRecord | None) -> Message:
        """The request of one stage to one site."""
        content = write_task(replace(self.task, round=self.open.number, site=address.site), sent)
        content[SECURE] = to_record(asked)
        ttl = self.plan.round_timeout + EXPIRY_SLACK
        return Message(content, address.node, MessageType.TRAIN, ttl=ttl, group_id=f"{self.open.number}-{asked.stage}")


def _stage_reply(take: Callable[[int, Any], None], kind: type) -> Take:
    """Reads a message of this kind before it is taken."""
    return lambda seat, content: take(seat, from_record(content.get(SECURE), kind))
