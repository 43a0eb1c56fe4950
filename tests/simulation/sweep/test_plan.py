"""What cannot be run is refused before anything runs, and a run goes by what it is made of."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.config.run import config_from_json
from common.errors import ConfigError, FedMRIError
from simulation.sweep import plan
from simulation.sweep.grid import Arm, Grid, Hospitals
from simulation.sweep.plan import plan_sweep

CACHE = Path("cache")


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "build_model", lambda _: None)


def grid(hospitals: Path, *settings: str, folds: tuple[str, ...] = ("far",)) -> Grid:
    arms = (Arm("first"), Arm("second", settings))
    return Grid(seeds=(3, 4), data=(Hospitals("h", str(hospitals), folds),), arms=arms)


def test_a_run_for_each_seed_arm_and_fold(hospitals: Path) -> None:
    jobs = plan_sweep(grid(hospitals, "rounds=7", folds=("far", "a+far")), CACHE)
    expected = [(s, arm, f"h without {fold}") for s in (3, 4) for arm in ("first", "second") for fold in ("far", "a+far")]
    assert [(job.seed, job.arm, job.place) for job in jobs] == expected
    last = jobs[-1]
    assert [folder.name for folder in last.sites] == ["b"]
    assert [folder.name for folder in last.external] == ["a", "far"]
    config = config_from_json(last.config)
    assert (config.seed, config.federation.rounds) == (4, 7)
    assert len({job.identity for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("no_such_key=1", "Unknown key 'no_such_key'"),
        ("training.learning_rates=1", "training.learning_rates"),
        ("rounds=0", "federation.rounds: expected"),
        ("evaluation.holdout=0", "evaluation.holdout = 0 holds no patient back"),
        ("evaluation.holdout=0.4", "expected the patients, classes and evaluation.holdout of the arm 'first'"),
        ("secure.enabled=true", "secure.enabled"),
    ],
)
def test_an_arm_is_refused_by_its_name(hospitals: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_sweep(grid(hospitals, setting), CACHE)
    assert str(refused.value).startswith("Arm 'second': ")
    assert said in str(refused.value)


def test_a_fold_is_refused_by_its_name(hospitals: Path) -> None:
    with pytest.raises(ConfigError, match=r"data 'h', fold 'nowhere'.*nowhere.* is not among"):
        plan_sweep(grid(hospitals, folds=("nowhere",)), CACHE)
    with pytest.raises(FedMRIError, match="data 'h', fold 'far'"):
        plan_sweep(grid(hospitals / "none"), CACHE)


def test_nobody_held_back_is_told(hospitals: Path) -> None:
    asked = grid(hospitals)
    with pytest.raises(ConfigError, match="no labelled patient is held back"):
        plan_sweep(replace(asked, settings=("evaluation.holdout=0.0001",)), CACHE)


def test_the_identity_follows_patients_labels_and_files(hospitals: Path) -> None:
    before = [job.identity for job in plan_sweep(grid(hospitals), CACHE)]
    assert [job.identity for job in plan_sweep(grid(hospitals), CACHE)] == before
    file = next((hospitals / "a").glob("sub-*/anat/*"))
    os.utime(file, ns=(0, 0))
    touched = [job.identity for job in plan_sweep(grid(hospitals), CACHE)]
    assert not set(touched) & set(before)
    table = hospitals / "b" / "participants.tsv"
    table.write_text(table.read_text().replace("idh-wildtype", "oligodendroglioma", 1))
    assert not set(touched) & {job.identity for job in plan_sweep(grid(hospitals), CACHE)}
