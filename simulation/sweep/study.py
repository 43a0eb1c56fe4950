"""What a sweep has done, in Optuna's own SQLite file: one trial a run, with its answers. Looks at no network.

A run counts by its identity (configuration, patients, code), so that a grid may grow: what it had is not run again. Each grid has
a study of its own, for Optuna's parameters keep the choices that they began with. Optuna's `GridSampler` draws nothing here: it
takes a run that failed or was cut off for done, and can end a study only from inside `optimize`, which knows no processes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from common.errors import ConfigError, FederationError
from simulation.sweep.job import Result
from simulation.sweep.plan import Job

STUDY_NAME = "study.db"
IDENTITY, RESULT, ERROR, TRACE = "identity", "result", "error", "trace"


class Kept:
    """The runs that are done.

    Args:
        out: folder of the sweep, made where it is absent.
        jobs: all runs of the grid.

    Raises:
        ConfigError: a path that SQLite's addresses cannot name.
        FederationError: the file is damaged, or none of Optuna's.
    """

    def __init__(self, out: Path, jobs: Sequence[Job]) -> None:
        if "?" in str(out):
            raise ConfigError(f"--out {out}: expected a path without '?', which SQLite's addresses cannot name.")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        out.mkdir(parents=True, exist_ok=True)
        self._choices = {
            "arm": CategoricalDistribution(list(dict.fromkeys(job.arm for job in jobs))),
            "seed": CategoricalDistribution(list(dict.fromkeys(job.seed for job in jobs))),
            "place": CategoricalDistribution(list(dict.fromkeys(job.place for job in jobs))),
        }
        title = "; ".join(f"{name} {', '.join(map(str, one.choices))}" for name, one in self._choices.items())
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{out / STUDY_NAME}")
            self._study = optuna.create_study(
                storage=storage, study_name=_short(title), direction="minimize", load_if_exists=True
            )
            names = optuna.get_all_study_names(storage)
            self._trials = [trial for name in names for trial in optuna.load_study(study_name=name, storage=storage).trials]
        except (SQLAlchemyError, RuntimeError) as error:
            raise FederationError(f"{out / STUDY_NAME} cannot be read as Optuna's ({error}). Name another --out.") from error

    def done(self) -> dict[str, Result]:
        """Results by identity."""
        whole = [trial for trial in self._trials if trial.state == TrialState.COMPLETE]
        return {trial.user_attrs[IDENTITY]: trial.user_attrs[RESULT] for trial in whole}

    def keep(self, job: Job, result: Result, value: float | None) -> None:
        """Write one run.

        Args:
            job: that was done.
            result: as `run_job` gives it.
            value: log-loss on held-back patients; None: the run failed, and is tried again next time.
        """
        attributes: dict[str, Any] = {IDENTITY: job.identity}
        attributes |= {RESULT: result} if value is not None else {ERROR: result["error"], TRACE: result["trace"]}
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        params = {"arm": job.arm, "seed": job.seed, "place": job.place}
        trial = create_trial(state=state, value=value, params=params, distributions=dict(self._choices), user_attrs=attributes)
        self._study.add_trial(trial)


def _short(title: str) -> str:
    """A name of a study that SQLite's column holds."""
    return title if len(title) <= 200 else f"{title[:180]}... {hashlib.sha256(title.encode()).hexdigest()[:12]}"
