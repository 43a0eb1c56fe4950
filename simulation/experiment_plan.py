"""What an experiment is: sites, external hospital, configuration and run folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from common.config.run import RunConfig
from simulation.cluster import Cluster
from simulation.engines import DEFAULT_ENGINE
from simulation.processes import Workers


@dataclass(frozen=True)
class Experiment:
    """What `fedmri-sim run` was asked for, checked.

    Attributes:
        config: of the run, with the weights' path made absolute.
        source, settings: the same as a file and as key=value texts, as the ServerApp reads them.
        sites: training sites; external: held-out ones.
        models: folder where trained baselines are kept, to be shared by folds.
        resume: go on with the run that `out` holds.
        engine: what virtual sites run in (`simulation.engines`).
        cluster: the Ray cluster that does the work, if this machine alone does not.
    """

    config: RunConfig
    source: Path
    settings: tuple[str, ...]
    data: Path
    sites: tuple[str, ...]
    external: tuple[str, ...]
    out: Path
    cache: Path
    models: Path
    resume: bool = False
    engine: str = DEFAULT_ENGINE
    cluster: Cluster | None = None

    @property
    def workers(self) -> Workers:
        """What baselines and audits run in."""
        return self.cluster or os.cpu_count() or 1
