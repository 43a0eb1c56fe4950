"""Frozen weights for hospitals that lack them: small ones of the coordinator's own go out before a round, once a hospital.

What FedMRI ships is at every hospital already; what comes from a hub, each fetches there.
"""

from collections.abc import Callable
from dataclasses import replace
from logging import INFO
from pathlib import Path

from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from common.messages.round import Task
from common.messages.weights import LACKING, MAX_BYTES, write_offer
from server.run.asking import Asked, ask
from server.run.plan import NAMED_WEIGHTS, RunPlan
from server.strategy.progress import Progress
from server.strategy.round_state import Address

Supply = Callable[[Grid, int, list[Address]], None]


class Supplier:
    """Asks each hospital once a run whether it has the weights, and hands them to those that lack them.

    Args:
        task: of the run; its `backbone` is their hash.
        file: the coordinator's.
        timeout: seconds that each of the two messages may take.
        progress: notified of sites.
    """

    def __init__(self, task: Task, file: Path, timeout: float, progress: Progress) -> None:
        self.task, self.file, self.timeout, self.progress = task, file, timeout, progress
        self.asked: set[str] = set()

    def __call__(self, grid: Grid, number: int, there: list[Address]) -> None:
        """Before a round's requests go out. Who cannot be supplied says so when it is asked to train."""
        new = [address for address in there if address.name not in self.asked]
        if not new:
            return
        told = self._offer(grid, number, new, b"")
        lacking = [address for address in new if told.failures.get(address.name) == LACKING]
        if lacking:
            sent = self._offer(grid, number, lacking, self.file.read_bytes())
            log(INFO, "The frozen weights were handed to %s", ", ".join(sorted(sent.told)) or "nobody")
        self.asked |= told.told.keys() | {address.name for address in lacking}

    def _offer(self, grid: Grid, number: int, there: list[Address], content: bytes) -> Asked:
        task = replace(self.task, round=number)
        requests: dict[Address, RecordDict] = {address: write_offer(task, content) for address in there}
        return ask(grid, requests, number, self.timeout, "weights", self.progress)


def supplier(plan: RunPlan, task: Task, progress: Progress) -> Supply | None:
    """For a real federation whose weights are the coordinator's own small safetensors file; None: nothing to hand out."""
    file = Path(plan.weights)
    own = (
        bool(plan.weights) and not plan.sites and file.suffix == ".safetensors" and plan.config.model.weights not in NAMED_WEIGHTS
    )
    if not own:
        return None
    if file.stat().st_size > MAX_BYTES:
        log(INFO, "The frozen weights have more than %d MB: hospitals need the file itself", MAX_BYTES // 1_000_000)
        return None
    return Supplier(task, file, plan.config.federation.round_timeout, progress)
