"""What the protocols of a study have trained, kept in its folder until the study is whole, so that one that was cut off goes on.

Each answer is a file of its own. It counts for the same configuration, rates, patients, labels and code alone.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import SiteData
from common.files import write_atomic
from common.messages.code_version import code_hash
from simulation.protocols.protocol import Answer
from simulation.protocols.tuned import Job, Tuned

FOLDER = "trained"


class Finished:
    """The answers in a study's folder.

    Args:
        out: the study's folder.
        patients: labelled training patients of each site, and the external ones.
    """

    def __init__(self, out: Path, patients: Sequence[SiteData]) -> None:
        self._folder = out / FOLDER
        self._patients = [[one.key, one.labels.tolist()] for one in patients]

    def read(self, job: Job) -> Tuned | None:
        """The answer of an equal job; None: there is none, or it cannot be read."""
        try:
            kept = json.loads((self._folder / f"{job.name}.json").read_bytes())
            if kept["identity"] != self._identity(job):
                return None
            given = kept["answer"]
            answer = Answer(**given | {"probabilities": np.array(given["probabilities"], float)})
            return Tuned(answer, "", float(kept["seconds"]), float(kept["peak_megabytes"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def stale(self, jobs: Sequence[Job]) -> bool:
        """Whether there is an answer of one of these protocols that does not count for its job."""
        return any((self._folder / f"{job.name}.json").exists() and self.read(job) is None for job in jobs)

    def keep(self, job: Job, found: Tuned) -> None:
        """Write an answer. A protocol that could not be run is not kept: it is tried again."""
        if found.answer is None:
            return
        answer: dict[str, Any] = asdict(found.answer) | {"probabilities": found.answer.probabilities.tolist()}
        kept = {"answer": answer, "seconds": found.seconds, "peak_megabytes": found.peak_megabytes}
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._folder / f"{job.name}.json", json.dumps({"identity": self._identity(job)} | kept).encode())

    def forget(self) -> None:
        """The study is whole, and holds them all."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _identity(self, job: Job) -> str:
        said = [job.name, job.config, asdict(job.tuning), self._patients, code_hash()]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()
