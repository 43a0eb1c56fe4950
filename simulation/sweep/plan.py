"""From a grid to its runs: what can be refused is refused here, by the arm's name, before anything trains."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from common.cli import config_path
from common.config.classes import require_classes
from common.config.run import RunConfig, load_config
from common.data.cases import read_site
from common.data.holdout import held_back
from common.errors import ConfigError, WeightsError
from common.messages.code_version import code_hash
from common.models.backbones.weights import SHIPPED_FILES, WITHOUT_FILE
from common.models.build import build_model
from common.schema import plain
from server.run.plan import split_external, training_sites
from simulation.sweep.grid import Arm, Grid

KEPT_WEIGHTS = (*WITHOUT_FILE, *SHIPPED_FILES)  # whatever else `model.weights` says is a path


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed, one group of sites left out. Plain values, which a new process can take.

    Attributes:
        arm, seed, place: which; `place` names the hospitals and the fold.
        hospitals: their name in the grid.
        config: as JSON.
        sites: folders of the training hospitals; external: of those left out.
        cache: of slices.
        identity: equal for runs of equal configuration, patients and code, and for no others.
    """

    arm: str
    seed: int
    place: str
    hospitals: str
    config: str
    sites: tuple[Path, ...]
    external: tuple[Path, ...]
    cache: Path
    identity: str

    @property
    def name(self) -> str:
        """Unlike every other job's."""
        return f"{self.arm}, seed {self.seed}, {self.place}"


class Place(NamedTuple):
    """A group of sites that is left out of some hospitals."""

    name: str
    hospitals: str
    sites: tuple[Path, ...]
    external: tuple[Path, ...]


class People(NamedTuple):
    """Patients by site.

    Attributes:
        who: id, label (below 0: none) and whether held back, which all arms must have in common.
        files: what distinguishes their files and covariates from others of the same names.
    """

    who: dict[str, list[tuple[str, int, bool]]]
    files: str


def plan_sweep(grid: Grid, cache: Path) -> list[Job]:
    """The runs, seed by seed, so that a sweep that is cut off has compared all arms on the first seeds.

    Raises:
        ConfigError: names the arm and the setting, or the hospitals and the fold.
        DataError: a site folder that cannot be read.
        WeightsError: weights that cannot be had.
    """
    configs = {arm.name: arm_config(arm, grid) for arm in grid.every_arm}
    _require_models(configs)
    places, code = _places(grid), code_hash()
    people = _people_of(configs, places)
    jobs = []
    for seed in grid.seeds:
        for arm, config in configs.items():
            text = replace(config, seed=seed).to_json()
            for place in places:
                parts = [text, place.name, people[arm, place.name], code]
                identity = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
                jobs.append(Job(arm, seed, place.name, place.hospitals, text, place.sites, place.external, cache, identity))
    return jobs


def arm_config(arm: Arm, grid: Grid) -> RunConfig:
    """The arm's configuration, checked; a path of weights is made absolute.

    Raises:
        ConfigError: with the arm's name.
    """
    try:
        config = load_config(config_path(grid.base), (*grid.settings, *arm.settings))
    except ConfigError as error:
        raise ConfigError(f"Arm {arm.name!r}: {error}") from error
    require_classes(config, "A sweep")
    if not config.evaluation.holdout:
        raise ConfigError(
            f"Arm {arm.name!r}: evaluation.holdout = 0 holds no patient back, and a sweep chooses by held-back patients of the "
            "training hospitals alone. Set it to 0.2, say (private runs allow none, and cannot be swept)."
        )
    if config.secure.enabled:
        raise ConfigError(f"Arm {arm.name!r}: secure.enabled: a sweep trains in the clear. Set secure.enabled = false.")
    weights = config.model.weights
    if weights not in KEPT_WEIGHTS:
        config = replace(config, model=replace(config.model, weights=str(Path(weights).expanduser().resolve())))
    return config


def _require_models(configs: dict[str, RunConfig]) -> None:
    """Build each different model once."""
    built = set[str]()
    for arm, config in configs.items():
        key = json.dumps([plain(config.model), plain(config.data)], sort_keys=True)
        try:
            if key not in built:
                build_model(config)
        except (ConfigError, WeightsError) as error:
            raise type(error)(f"Arm {arm!r}: {error}") from error
        built.add(key)


def _places(grid: Grid) -> list[Place]:
    found = []
    for one in grid.data:
        folder = Path(one.folder).expanduser().resolve()
        for fold in one.folds:
            external = split_external(fold)
            try:
                sites = training_sites(folder, external)
            except ConfigError as error:
                raise ConfigError(f"data {one.name!r}, fold {fold!r}: {error}") from error
            paths = (tuple(folder / name for name in names) for names in (sites, external))
            found.append(Place(f"{one.name} without {fold}", one.name, *paths))
    if len({place.name for place in found}) != len(found):
        raise ConfigError(f"data: expected each fold once, got {', '.join(place.name for place in found)}.")
    return found


def _people_of(configs: dict[str, RunConfig], places: list[Place]) -> dict[tuple[str, str], People]:
    """By arm and place.

    Raises:
        ConfigError: an arm with other patients than the first, or none who is labelled and held back.
    """
    read: dict[str, People] = {}
    found: dict[tuple[str, str], People] = {}
    first = next(iter(configs))
    for arm, config in configs.items():
        for place in places:
            key = json.dumps([plain(config.data), plain(config.task), config.evaluation.holdout, place.name], sort_keys=True)
            if key not in read:
                read[key] = _people(place, config)
            found[arm, place.name] = read[key]
            if found[arm, place.name].who != found[first, place.name].who or config.task != configs[first].task:
                raise ConfigError(
                    f"Arm {arm!r}: expected the patients, classes and evaluation.holdout of the arm {first!r}, for arms are "
                    "compared on the same patients; they differ. Make a sweep of its own of it."
                )
            if not any(held and label >= 0 for site in place.sites for _, label, held in read[key].who[site.name]):
                raise ConfigError(f"data: {place.name}: no labelled patient is held back to choose by. Raise evaluation.holdout.")
    return found


def _people(place: Place, config: RunConfig) -> People:
    who: dict[str, list[tuple[str, int, bool]]] = {}
    files = hashlib.sha256()
    for folder in (*place.sites, *place.external):
        cases = read_site(folder, config, simulated=True).usable().cases
        held = held_back([case.id for case in cases], config.evaluation.holdout)
        who[folder.name] = [(case.id, case.label, bool(back)) for case, back in zip(cases, held, strict=True)]
        for case in cases:
            stamps = [(kind, path.stat().st_size, path.stat().st_mtime_ns) for kind, path in case.sources()]
            files.update(repr((case.id, stamps, case.covariates)).encode())
    return People(who, files.hexdigest())
