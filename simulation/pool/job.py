"""What a fork server is started for."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Job:
    """One run in the pool.

    Attributes:
        settings: as Flower's run configuration.
        nodes: virtual sites.
        workers: how many of them at once.
        gpus: of this machine.
        parent: process id of who starts the fork server, and whom that does not outlive.
    """

    settings: Mapping[str, str | int]
    nodes: int
    workers: int
    gpus: int
    parent: int

    def to_json(self) -> str:
        """For the fork server's standard input."""
        return json.dumps(asdict(self))
