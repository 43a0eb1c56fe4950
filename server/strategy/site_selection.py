"""Which sites are connected, how they are addressed, and which of them a round asks."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from flwr.serverapp import Grid

from common.config.sections import FederationConfig
from common.errors import FederationError
from common.text import printable
from server.events.kinds import AFTER_FAILURES, CLOSED
from server.strategy.backoff import Attendance
from server.strategy.messaging import answered
from server.strategy.progress import Progress
from server.strategy.round_state import Address

Node = TypeVar("Node")


class Presence:
    """The sites of one federation. They are looked up anew in every attempt: who joins late is asked from then on.

    Args:
        plan: how many sites are needed, how long to wait for them, when one is paused.
        sites: names of the site folders (simulation); empty: each connected node is one site.
        progress: notified of sites that are paused.
    """

    def __init__(self, plan: FederationConfig, sites: Sequence[str], progress: Progress) -> None:
        self.plan, self.sites, self.progress = plan, sites, progress
        self.attendance = Attendance(plan.pause_after, plan.pause_rounds)
        self.held_out: tuple[str, ...] = ()  # external hospitals: a node of such a name must not train
        self.closed: dict[str, str] = {}  # sites that this run does not ask, and why
        self.anew: set[str] = set()  # those of them who are heard again before the next attempt, and may be opened
        self.known: set[str] = set()  # hospitals that were connected at any time

    def addresses(self, grid: Grid) -> list[Address]:
        """All sites, in the order of their names.

        Raises:
            FederationError: a hospital that is to be held out is connected, and would train.
        """
        if self.sites:
            nodes = sorted(self._asked_of(grid.get_node_ids))
            return [Address(site, nodes[i % len(nodes)], site) for i, site in enumerate(self.sites)] if nodes else []
        named = sorted(
            (printable(node.name, 80) or f"node-{node.node_id}", node.node_id) for node in self._asked_of(grid.get_nodes)
        )
        taken = [name for name, _ in named]
        if both := sorted({*taken} & {*self.held_out}):
            raise FederationError(
                f"{', '.join(both)} is the external hospital of this run, and is connected as one that trains: what it would be "
                "measured on, the model would have seen. Stop its service for this run, or hold out another hospital."
            )
        there = [Address(name if taken.count(name) == 1 else f"{name}-{node}", node, "") for name, node in named]
        self.known |= {address.name for address in there}
        return there

    def called(self, grid: Grid, number: int, *, everyone: bool = False) -> tuple[list[Address], tuple[str, ...]]:
        """The sites that a round asks, and the names of those that are left alone.

        Where the others are too few, or `everyone` is wanted, paused sites are asked all the same; closed ones never are.
        """
        present, paused = self.addresses(grid), self.attendance.paused()
        there = [address for address in present if address.name not in self.closed]
        shut = tuple(address.name for address in present if address.name in self.closed)
        for name in shut:
            self.progress.paused(name, f"not asked: {self.closed[name]}", CLOSED, number)
        resting = tuple(address.name for address in there if address.name in paused)
        if everyone or len(there) - len(resting) < self.plan.min_sites:
            resting = ()
        for name in resting:
            again = number + paused[name]
            reason = f"paused after {self.attendance.failed(name)} failures in a row; asked again in round {again}"
            self.progress.paused(name, reason, AFTER_FAILURES, number)
        return [address for address in there if address.name not in resting], (*shut, *resting)

    def wait(self, grid: Grid, number: int) -> None:
        """Wait until enough nodes are connected, but not for ever (Flower's own sampling would).

        Raises:
            FederationError: too few have come in time; or all who were ever there have refused the run, and none is waited for.
        """
        needed = 1 if self.sites else self.plan.min_sites
        deadline = time.monotonic() + self.plan.wait_for_sites
        while (connected := self._open(grid)) < needed:
            if self.closed and self.known <= self._shut():
                raise FederationError(
                    f"Round {number} is not asked for: every hospital that was there has refused this run.{self._refused()} Mend "
                    "what they say and go on with --resume, or begin another run."
                )
            self.progress.set_state("waiting", number)
            if time.monotonic() >= deadline:
                raise FederationError(
                    f"{connected} of the {needed} sites that the federation needs were connected after "
                    f"{self.plan.wait_for_sites:g} s. Start the missing sites, or lower federation.min_sites.{self._refused()}"
                )
            time.sleep(0.2)

    def _open(self, grid: Grid) -> int:
        """How many nodes are connected and not shut out."""
        if not self.closed or self.sites:
            return len(self._asked_of(grid.get_node_ids))
        return sum(address.name not in self._shut() for address in self.addresses(grid))

    def _shut(self) -> set[str]:
        """Closed for the rest of the run."""
        return {*self.closed} - self.anew

    def _refused(self) -> str:
        """What each closed site said, as sentences."""
        return "".join(f" {name} is not asked: {why.rstrip('.')}." for name, why in sorted(self.closed.items()))

    def require_enough(self) -> None:
        """In simulation, where the sites are known beforehand, refuse at once if they are too few."""
        if self.sites and len(self.sites) < self.plan.min_sites:
            raise FederationError(
                f"federation.min_sites is {self.plan.min_sites}, but there are only {len(self.sites)} training sites: "
                f"{', '.join(self.sites)}. Lower it with --set federation.min_sites={len(self.sites)}."
            )

    def _asked_of(self, what: Callable[[], Iterable[Node]]) -> list[Node]:
        """What Flower's grid reports of its nodes, if it does in time."""
        return answered(lambda: list(what()), self.plan.wait_for_sites)
