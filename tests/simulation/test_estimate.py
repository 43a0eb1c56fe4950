"""What a run would take: closed forms of the scaling, and the command on phantoms."""

import json
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from common.config.run import config_from_table, load_config
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from server.deployment.trial import PROGRAM_MIB, Played, require_plain
from simulation.cli import main
from simulation.estimate import Estimate, packed, scaled, told
from simulation.phantom import write_hospitals

SAMPLE = Played(start=3.0, rounds=(8.0, 4.0, 2.0), predict=1.0, patients=4, labelled=2, memory=1 << 20)
TABLE = {
    "model": {"backbone": "fedmri_vit_mini", "weights": "random"},
    "data": {"size": 64},
    "training": {"head_rounds": 2},
    "federation": {"rounds": 5},
    "evaluation": {"every": 2, "baselines": True, "modality_subsets": False},
}


@pytest.mark.parametrize("seconds", [[3.0, 1.0, 1.0, 1.0], [5.0], [4.0, 4.0, 3.0, 2.0, 2.0], []])
def test_jobs_are_packed_nearly_as_well_as_can_be(seconds: list[float]) -> None:
    def in_order(order: tuple[float, ...]) -> float:
        busy = [0.0, 0.0]
        for one in order:
            busy[busy.index(min(busy))] += one
        return max(busy)

    best = min(in_order(order) for order in permutations(seconds))
    assert best <= packed(seconds, 2) <= best * 7 / 6  # Graham 1969: 4/3 - 1/(3 * 2)
    assert packed(seconds, 1) == sum(seconds)


def test_a_run_is_the_sample_times_its_patients() -> None:
    config = config_from_table(TABLE)
    found = scaled([SAMPLE, SAMPLE], config, {"a": 8, "b": 4, "c": 4}, {"a": 3, "b": 2, "c": 0}, external=12, workers=2)
    heads, tuned = 4.0 + 2.0, 3 * 0.5  # seconds a labelled patient in two head rounds, seconds a patient in three others
    assert found.rounds == pytest.approx(3 * heads + 8 * tuned)  # a on one core, b and c on the other
    answers = 12 * 0.25
    assert found.evaluation == pytest.approx(answers * (2 + 7))
    pooled, a, b = (known * heads + n * tuned + answers for known, n in ((5, 16), (3, 8), (2, 4)))
    assert found.baselines == pytest.approx(max(pooled, a + b) + 3.0)
    assert found.memory == 2 * (1 << 20) + PROGRAM_MIB * 2**20
    assert found.seconds == pytest.approx(found.rounds + found.evaluation + found.baselines + 6.0)
    alone = scaled([SAMPLE], config, {"a": 8, "b": 4}, {"a": 0, "b": 0}, external=12, workers=1)
    assert alone.rounds == pytest.approx(12 * tuned)
    assert alone.baselines == 0


def test_what_travels_is_the_arrays_and_their_headers() -> None:
    config = config_from_table(TABLE)
    arrays = get_arrays(build_model(config))
    bytes_ = sum(array.nbytes + 128 for array in arrays.values())
    found = scaled([SAMPLE], config, {"a": 8}, {"a": 0}, external=1, workers=1)
    assert (found.down, found.up) == (bytes_, bytes_)
    short = scaled([SAMPLE], replace(config, federation=replace(config.federation, wire="bf16")), {"a": 8}, {"a": 0}, 1, 1)
    assert short.down == bytes_
    assert short.up == pytest.approx(bytes_ / 2, rel=0.1)


@pytest.mark.parametrize("name", ["private", "demo"])
def test_private_and_personal_runs_are_refused(name: str) -> None:
    config = load_config(Path(f"configs/{name}.toml"), ('personal.keep=["norms"]',) if name == "demo" else ())
    with pytest.raises(ConfigError, match="--dry-run plays plain rounds"):
        require_plain(config)


def test_the_command_tells_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hospitals(tmp_path / "hospitals", sites=2, patients=3, external=2, seed=2)
    asked = ["run", "--data", str(tmp_path / "hospitals"), "--external", "external", "--out", str(tmp_path / "run"), "--dry-run"]
    settings = ["weights=random", "data.size=32", "data.slices=2", "head_rounds=3", "federation.rounds=4"]
    asked += ["--cache", str(tmp_path / "cache"), *(word for one in settings for word in ("--set", one))]
    read = time.process_time()  # what this program has read already, the run's programs read too
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] == pytest.approx(sum(found[part] for part in ("rounds", "evaluation", "baselines", "start")))
    assert min(found[part] for part in ("rounds", "evaluation", "baselines", "start")) > 0
    assert found["start"] >= 2 * read
    assert not (tmp_path / "run").exists()


def test_the_command_says_it_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hospitals(tmp_path / "hospitals", sites=2, patients=1, external=1, seed=2)
    found = Estimate(60.0, 60.0, 60.0, 1.0, 2**30, 1000, 1000)
    monkeypatch.setattr("simulation.estimate.estimate", lambda *_: found)
    asked = ["run", "--data", str(tmp_path / "hospitals"), "--external", "external", "--out", str(tmp_path / "run"), "--dry-run"]
    assert main([*asked, "--set", "weights=random"]) == 0
    assert told(found) in " ".join(capsys.readouterr().out.split())


def test_the_sentence_names_every_part() -> None:
    config = config_from_table(TABLE)
    said = told(scaled([SAMPLE], config, {"a": 8}, {"a": 8}, external=4, workers=1))
    for word in ("minutes", "rounds", "external evaluation", "baselines", "GiB", "MB"):
        assert word in said
