"""No hospital trains on an external patient: each one compares by content, before it is asked to train for the first time.

A simulation compares its folders beforehand (`simulation.twins`).
"""

from collections.abc import Sequence
from dataclasses import replace
from logging import INFO, WARNING

from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from common.data.fingerprint import Fingerprint
from common.errors import FederationError
from common.messages.held_out import THEIRS, write_held_out
from common.messages.round import Task
from server.run.asking import ask
from server.run.plan import RunPlan
from server.run.twins import external_fingerprints
from server.strategy.progress import Progress
from server.strategy.round_state import Address
from server.strategy.site_selection import Presence

UNCOMPARED = "it has not compared its patients with the external ones"


class HeldOutCheck:
    """Asks each hospital once a run. Who has not answered is not asked to train; it is asked anew before the next attempt.

    Args:
        task: of the run.
        external: the external patients' fingerprints.
        timeout: seconds that the message may take.
        presence: where hospitals are closed and opened.
        progress: notified of sites.
        refuse: end the run where a hospital has one of them; else the hospital alone is left out.
    """

    def __init__(
        self,
        task: Task,
        external: Sequence[Fingerprint],
        timeout: float,
        presence: Presence,
        progress: Progress,
        *,
        refuse: bool,
    ) -> None:
        self.task, self.external, self.timeout, self.refuse = task, external, timeout, refuse
        self.presence, self.progress = presence, progress
        self.compared: set[str] = set()

    def __call__(self, grid: Grid, number: int, there: list[Address]) -> None:
        """Before a round's requests go out.

        Raises:
            FederationError: a hospital has external patients among its own, and the run is to end then.
        """
        new = [address for address in self._all(grid, there) if address.name not in self.compared]
        if not new:
            return
        task = replace(self.task, round=number)
        requests: dict[Address, RecordDict] = {address: write_held_out(task, self.external) for address in new}
        found = ask(grid, requests, number, self.timeout, "held-out", self.progress)
        theirs = sorted(name for name, reason in found.failures.items() if reason == THEIRS)
        if theirs and self.refuse:
            raise FederationError(
                f"{', '.join(theirs)}: patients of this hospital are external ones of the run, too, by the content of their "
                "images. What the model would be measured on, it would have seen. Hold out another hospital; or let them "
                "leave such patients out of training with --set twins.with_external=drop."
            )
        self.compared |= found.told.keys()
        for name in found.told.keys() & self.presence.anew:
            self.presence.closed.pop(name, None)
        self.presence.anew -= found.told.keys()
        for name, reason in sorted(found.failures.items()):
            self.presence.closed[name] = reason if name in found.for_good else f"{UNCOMPARED} ({reason})"
            self.presence.anew |= {name} - found.for_good
            log(WARNING, "Round %d: %s is not asked: %s", number, name, self.presence.closed[name])
        log(INFO, "Compared with the external patients: %s", ", ".join(sorted(found.told)) or "no hospital")

    def _all(self, grid: Grid, there: list[Address]) -> list[Address]:
        """Those who are open, and those whom only this check has closed."""
        again = [address for address in self.presence.addresses(grid) if address.name in self.presence.anew]
        return [*there, *again]


def held_out_check(plan: RunPlan, task: Task, presence: Presence, progress: Progress) -> HeldOutCheck | None:
    """For a real federation; None: a simulation, or a run that is told to keep such patients."""
    way = plan.config.twins.with_external
    if plan.sites or way == "keep":
        return None
    timeout = plan.config.federation.round_timeout
    return HeldOutCheck(task, external_fingerprints(plan), timeout, presence, progress, refuse=way == "refuse")
