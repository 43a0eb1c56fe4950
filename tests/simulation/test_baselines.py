"""Baselines hold back the patients that the federation holds back, and are calibrated on them: models are stubs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.data.holdout import held_back
from common.evaluation.calibration.calibration import Scaling, fit_temperature, nll_sums
from common.evaluation.calibration.offsets import fit_scaling, offset_sums
from common.models.trained_model import TrainedModel
from simulation import baselines
from simulation.baselines import PROBE, Job, chosen, run_job, split_folders

CONFIG = config_from_table({"evaluation": {"holdout": 0.3}, "model": {"weights": "phantom", "backbone": "fedmri_vit_mini"}})
N = 30


def site(name: str) -> SiteData:
    generator = np.random.default_rng(sum(name.encode()))
    ids = tuple(f"sub-{number:03d}" for number in range(N))
    images = generator.random((N, 1, 4, 4, 4)).astype(np.float16)
    return SiteData(name, ids, images, np.ones((N, 4), bool), generator.integers(-1, 3, N), name)


def answer(patients: SiteData) -> np.ndarray:
    """A stub's probabilities, from the patients' images."""
    logits = np.asarray(patients.images)[:, 0, :3, 0, 0].astype(np.float64) * 6
    return np.asarray(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[SiteData]:
    """The patients that a baseline was given to train on."""
    given: list[SiteData] = []
    monkeypatch.setattr(baselines, "_open", lambda folders, *_: [site(folder.name) for folder in folders])
    monkeypatch.setattr(baselines, "build_model", lambda *_: None)
    monkeypatch.setattr(baselines, "trained_arrays", lambda _, training, *__: given.append(training) or {})
    monkeypatch.setattr(baselines, "predict", lambda _, patients: answer(patients))
    monkeypatch.setattr(baselines, "frozen_features", lambda _, patients, __, **___: answer(patients)[:, None])
    return given


def probe(monkeypatch: pytest.MonkeyPatch, given: list[np.ndarray]) -> None:
    def linear_probe(train, labels, features, *, classes, covariates=None):
        given.append(train)
        return features[:, 0]

    monkeypatch.setattr(baselines, "linear_probe", linear_probe)


def job(name: str, *sites: str, config: RunConfig = CONFIG) -> Job:
    return Job(name, tuple(map(Path, sites)), (Path("external"),), config.to_json(), Path("c"), Path("m"))


def expected(*names: str, offsets: bool = True) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Who trains, by site and id, and the calibrated answer for the external patients, by a plain loop."""
    trains, labels, own = [], [], []
    for name in names:
        patients = site(name)
        held = held_back(patients.ids, 0.3)
        for row, patient in enumerate(patients.ids):
            if not held[row]:
                trains.append((name, patient))
            elif patients.labels[row] >= 0:
                labels.append(int(patients.labels[row]))
                own.append(answer(patients)[row])
    truth, said = np.array(labels), np.array(own)
    scaling = fit_scaling(offset_sums(truth, said), np.bincount(truth, minlength=3)) if offsets else None
    scaling = scaling or Scaling(fit_temperature(nll_sums(truth, said)))
    assert abs(scaling.temperature - 1) > 0.1
    assert bool(scaling.offsets) is offsets
    return trains, scaling.apply(answer(site("external")))


def test_the_pooled_model_trains_on_each_sites_own_training_patients(trained: list[SiteData]) -> None:
    who, answers = expected("a", "b")
    assert run_job(job("pooled", "a", "b")) == pytest.approx(answers)
    assert trained[0].ids == tuple(f"{name}/{patient}" for name, patient in who)


def test_a_hospital_alone_is_calibrated_on_its_own(trained: list[SiteData]) -> None:
    who, answers = expected("b")
    assert run_job(job("b", "b")) == pytest.approx(answers)
    assert trained[0].ids == tuple(patient for _, patient in who)


def test_without_offsets_in_the_federation_a_baseline_has_none(trained: list[SiteData]) -> None:
    config = replace(CONFIG, evaluation=replace(CONFIG.evaluation, offsets=False))
    assert run_job(job("b", "b", config=config)) == pytest.approx(expected("b", offsets=False)[1])


def test_the_probe_too(trained: list[SiteData], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    probe(monkeypatch, seen)
    _, answers = expected("a", "b")
    assert run_job(job(PROBE, "a", "b")) == pytest.approx(answers)
    training, held = split_folders((Path("a"), Path("b")), CONFIG, Path("c"))
    assert len(seen[0]) == len(training.labelled)
    assert len(training) + len(held) == 2 * N


def test_a_baseline_keeps_the_best_round_by_its_own_held_back_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub's answers get worse with each round's number: the head round is the best of four, and an average is in between."""
    known = site("a")
    known = known.select(known.labelled)
    noise = np.random.default_rng(0).normal(size=(len(known), 3))

    def said(trained: TrainedModel, patients: SiteData) -> np.ndarray:
        logits = (4.0 - trained.arrays["w"][0]) * np.eye(3)[patients.labels] + noise
        return np.asarray(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))

    monkeypatch.setattr(baselines, "build_model", lambda *_: None)
    monkeypatch.setattr(baselines, "predict", said)
    rounds = [{"w": np.array([number], np.float32)} for number in range(1, 5)]
    kept = {}
    for stage in ("last", "best", "average", "interpolate", "auto"):
        table = {"evaluation": {"holdout": 0.3, "stage": stage}, "training": {"head_rounds": 1}}
        kept[stage] = float(chosen(rounds, known, config_from_table(table))["w"][0])
        nobody = known.select([])
        assert float(chosen(rounds, nobody, config_from_table(table))["w"][0]) == (3.0 if stage == "average" else 4.0)
    assert kept == {"last": 4.0, "best": 1.0, "average": 3.0, "interpolate": 1.0, "auto": 1.0}
