"""What a run would take at the hospitals that are admitted, before it is handed over (`run --dry-run`).

The coordinator has the external patients alone: it plays the rounds on a few of these, and scales them by the numbers of patients
that were agreed. What a hospital's machine is like, it cannot know: each is taken to be as fast as this one, and a machine of its
own, so that a round takes what it takes the slowest. Nothing is sent, started or kept but the external patients' slices.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common.config.run import RunConfig
from common.data.fingerprint import MOST_TOKENS
from common.errors import ConfigError
from server.deployment.home import Home
from server.deployment.registry import admitted
from server.deployment.submit import Submission, checked_plan
from server.deployment.trial import PROGRAM_MIB, Played, evaluation_seconds, play, require_plain, round_seconds, travels
from server.run.external import open_external
from server.run.federate import from_file

CALIBRATIONS = 2  # requests: the sums for the scaling, and those for who is out of distribution
TOKEN_BYTES = 8
POLLS = 3.0  # seconds for which a request, and its answer, lie until they are asked for


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        rounds: seconds, the slowest hospital's of each round.
        requests: seconds for which programs start and messages lie, in rounds and beside them.
        evaluation, start: seconds at the coordinator.
        memory: bytes, at the coordinator; the programs of a hospital, which train, hold about as many.
        down, up: bytes that a hospital is sent and sends in a round.
        total: bytes of all rounds and hospitals, and of the requests beside the rounds.
        patients: taken for each hospital.
        assumed: those with whom no number was agreed.
    """

    rounds: float
    requests: float
    evaluation: float
    start: float
    memory: int
    down: int
    up: int
    total: int
    patients: Mapping[str, int]
    assumed: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.rounds + self.requests + self.evaluation + self.start

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"seconds": self.seconds, **asdict(self)}


def estimate(home: Home, wanted: Submission) -> Estimate:
    """Open the external patients, play the sample, and scale.

    Raises:
        ConfigError: a wrong configuration or external folder, no hospital, or a run whose rounds the sample does not play.
        DataError, WeightsError: as the run itself would.
    """
    plan = checked_plan(home, wanted)
    config = from_file(plan.config, plan.weights)
    require_plain(config)
    hospitals = {site.name: site.patients for site in admitted(home)}
    if not hospitals:
        raise ConfigError(f"No hospital is admitted at {home.folder}: there is nobody to train. See `fedmri-server invite`.")
    external = open_external(plan.data, plan.external, config, plan.cache, masks=True)
    played = play(external, config, lambda number: number)
    assumed = tuple(name for name, agreed in hospitals.items() if not agreed)
    patients = {name: agreed or len(external) for name, agreed in hospitals.items()}
    return scaled(played, config, patients, assumed, len(external))


def scaled(played: Played, config: RunConfig, patients: Mapping[str, int], assumed: tuple[str, ...], external: int) -> Estimate:
    """The whole run's figures.

    Args:
        played: here.
        config: of the run.
        patients: of each hospital, all taken to have a label.
        assumed: the hospitals whose number is a guess.
        external: patients.
    """
    trained = {name: number - round(number * config.evaluation.holdout) for name, number in patients.items()}
    each = np.array(list(round_seconds([played], config, trained, trained).values()))
    down, up = travels(config)
    return Estimate(
        rounds=float(each.max(0).sum()),
        requests=requests(config) * (played.start + POLLS),
        evaluation=evaluation_seconds(played.predict / played.patients * external, config),
        start=2 * played.start,
        memory=played.memory + PROGRAM_MIB * 2**20,
        down=down,
        up=up,
        total=((down + up) * config.federation.rounds + beside_rounds(config, down, external)) * len(patients),
        patients=dict(patients),
        assumed=assumed,
    )


def requests(config: RunConfig) -> int:
    """That a hospital answers one after the other: a process starts at the hospital for each."""
    return config.federation.rounds + int(_compares(config)) + CALIBRATIONS * int(_calibrates(config))


def beside_rounds(config: RunConfig, down: int, external: int) -> int:
    """Bytes that a hospital is sent beside the rounds: the model to calibrate, and fingerprints of the external patients.

    Args:
        config: of the run.
        down: bytes of the model.
        external: patients, each taken to have all modalities, with as many places as a fingerprint may hold.
    """
    fingerprints = external * len(config.data.modalities) * MOST_TOKENS * TOKEN_BYTES
    return CALIBRATIONS * int(_calibrates(config)) * down + int(_compares(config)) * fingerprints


def _compares(config: RunConfig) -> bool:
    return config.twins.with_external != "keep"


def _calibrates(config: RunConfig) -> bool:
    return config.evaluation.holdout > 0


def told(found: Estimate) -> str:
    """One paragraph for the terminal."""
    minutes = {name: f"{getattr(found, name) / 60:.1f}" for name in ("seconds", "rounds", "requests", "evaluation")}
    guess = (
        f" No number of patients was agreed with {', '.join(found.assumed)} (`admit --patients`): taken to have "
        f"{found.patients[found.assumed[0]]} each, as the external hospital."
        if found.assumed
        else ""
    )
    number, mb = len(found.patients), {name: getattr(found, name) / 1e6 for name in ("down", "up", "total")}
    return (
        f"About {minutes['seconds']} minutes, if each of {number} hospitals has a machine as fast and as busy as this one: "
        f"training {minutes['rounds']}, programs that start and messages that wait {minutes['requests']}, external evaluation "
        f"{minutes['evaluation']}. About {found.memory / 2**30:.1f} GiB of memory here, and as much at a hospital. A hospital is "
        f"sent {mb['down']:.2f} MB a round and sends {mb['up']:.2f} MB at most; all of them in the whole run "
        f"{mb['total']:.1f} MB.{guess} Nothing was sent, trained or kept."
    )
