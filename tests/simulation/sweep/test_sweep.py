"""A sweep with a stub in the trainer's place: what is run and kept, what is chosen, what is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.config.run import config_from_json
from common.errors import FederationError
from simulation.sweep import plan, sweep
from simulation.sweep.grid import Arm, Grid, Hospitals
from simulation.sweep.job import cross_fitted
from simulation.sweep.plan import Job
from simulation.sweep.table import markdown, terminal

ARMS = (Arm("dull"), Arm("sharp", ("rounds=11",)), Arm("lucky", ("rounds=12",)))
SHARPNESS = {"dull": (1.0, 1.0), "sharp": (2.0, 0.2), "lucky": (0.5, 9.0)}  # for those held back; for external ones


def answers(patients: list[str], sharpness: float) -> dict:
    labels = [number % 3 for number, _ in enumerate(patients)]
    odds = np.exp(sharpness * np.eye(3)[labels])
    return {"patients": patients, "labels": labels, "probabilities": (odds / odds.sum(1, keepdims=True)).tolist()}


def stub(job: Job) -> dict:
    held, external = SHARPNESS[job.arm]
    return {
        "held_back": answers([f"a/{number}" for number in range(9)], held),
        "external": answers([f"far/{number}" for number in range(6)], external),
    }


@pytest.fixture
def grid(hospitals: Path) -> Grid:
    settings = ("evaluation.bootstrap=50",)
    return Grid(settings=settings, seeds=(0, 1), data=(Hospitals("h", str(hospitals), ("far",)),), arms=ARMS)


class Runs:
    """Runs sweeps in this process, and keeps what was trained and said."""

    def __init__(self, out: Path) -> None:
        self.out, self.trained, self.said = out, list[str](), list[str]()
        self.work: Callable[[Job], dict] = stub

    def ended(self, work, jobs, workers):
        for job in jobs:
            self.trained.append(job.name)
            yield job, self.work(job)

    def __call__(self, grid: Grid) -> dict:
        self.trained, self.said = [], []
        return sweep.run_sweep(grid, self.out, Path("cache"), 1, self.said.append, lambda *_: None)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs(tmp_path / "out")
    monkeypatch.setattr(plan, "build_model", lambda _: None)
    monkeypatch.setattr(sweep, "as_they_end", runs.ended)
    return runs


def test_the_training_hospitals_choose_where_the_external_one_says_otherwise(runs: Runs, grid: Grid) -> None:
    table = runs(grid)
    loss = {row["name"]: row["external"]["log_loss"]["value"] for row in table["arms"]}
    assert min(loss, key=loss.__getitem__) == "lucky"
    assert table["chosen"] == "sharp"
    assert [row["name"] for row in table["arms"]] == ["dull", "sharp", "lucky"]
    expected = float(np.log1p(2 * np.exp(-2.0)))
    sharp = table["arms"][1]["held_back"]
    assert sharp["log_loss"]["value"] == pytest.approx(expected)
    assert sharp["log_loss"]["difference"]["value"] == pytest.approx(expected - np.log1p(2 * np.exp(-1.0)))
    assert sharp["patients"] == 9
    assert json.loads((runs.out / "table.json").read_text()) == table


def test_of_equal_log_losses_mcc_decides_then_the_first() -> None:
    def row(name: str, loss: float, mcc: float | None) -> dict:
        return {"name": name, "held_back": {"log_loss": {"value": loss}, "mcc": {"value": mcc}}}

    assert sweep.choose([row("a", 0.5004, 0.1), row("b", 0.5001, 0.2), row("c", 0.5, 0.2), row("d", 0.5, None)]) == "b"
    assert sweep.choose([{"name": "a", "held_back": None}]) is None


def test_what_is_done_is_not_run_again(runs: Runs, grid: Grid) -> None:
    first = runs(grid)
    assert len(runs.trained) == 6
    assert runs(grid) == first
    assert runs.trained == []
    assert "6 were done before" in runs.said[0]
    grown = replace(grid, seeds=(0, 1, 2), arms=(*ARMS[:2],))
    runs(grown)
    assert runs.trained == [f"{arm}, seed 2, h without far" for arm in ("dull", "sharp")]
    assert any("2 earlier runs here are of other settings" in sentence for sentence in runs.said)


def test_a_sweep_that_is_cut_off_goes_on(runs: Runs, grid: Grid) -> None:
    def interrupted(job: Job) -> dict:
        if len(runs.trained) == 5:
            raise KeyboardInterrupt
        return stub(job)

    runs.work = interrupted
    with pytest.raises(KeyboardInterrupt):
        runs(grid)
    left = json.loads((runs.out / "table.json").read_text())
    assert [(row["runs"], row["held_back"] is None) for row in left["arms"]] == [(2, False), (1, True), (1, True)]
    done, runs.work = runs.trained[:4], stub
    assert runs(grid)["chosen"] == "sharp"
    assert len(runs.trained) == 2
    assert not set(done) & set(runs.trained)


def test_an_arm_that_fails_is_told_by_name_and_tried_again(runs: Runs, grid: Grid) -> None:
    def failing(job: Job) -> dict:
        return {"error": "it diverged", "trace": "where"} if (job.arm, job.seed) == ("sharp", 1) else stub(job)

    runs.work = failing
    table = runs(grid)
    assert len(runs.trained) == 6
    assert table["arms"][1]["errors"] == ["sharp, seed 1, h without far: it diverged"]
    assert table["arms"][1]["held_back"] is None
    assert table["chosen"] == "dull"
    assert "sharp, seed 1, h without far: it diverged" in (runs.out / "table.md").read_text()
    runs.work = stub
    assert runs(grid)["chosen"] == "sharp"
    assert runs.trained == ["sharp, seed 1, h without far"]


def test_a_folder_that_is_no_sweep_is_refused(runs: Runs, grid: Grid) -> None:
    runs.out.mkdir()
    (runs.out / "study.db").write_text("no database, by far")
    with pytest.raises(FederationError, match="cannot be read as Optuna's"):
        runs(grid)
    (runs.out / "report.json").touch()
    with pytest.raises(FederationError, match="already holds a run"):
        runs(grid)


def test_the_table_marks_the_choice_and_says_what_chose(runs: Runs, grid: Grid) -> None:
    table = runs(grid)
    text = markdown(table)
    assert text == (runs.out / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| dull", "| sharp", "| lucky"))]
    assert [row.split(" | ")[0] for row in rows] == ["| dull", "| sharp (chosen)", "| lucky"]
    assert all(len(row.split(" | ")) == len(terminal(table).columns) for row in rows)
    assert "nothing was chosen on them" in text
    assert "`rounds=11`" in text


def test_a_held_back_patients_answer_is_calibrated_on_the_others_alone(grid: Grid, runs: Runs) -> None:
    config = config_from_json(plan.plan_sweep(grid, Path("cache"))[0].config)
    generator = np.random.default_rng(0)
    labels, said = generator.integers(0, 3, 8), generator.dirichlet([1, 1, 1], 8)
    found = cross_fitted(labels, said, config)
    labels[2] = (labels[2] + 1) % 3
    other = cross_fitted(labels, said, config)
    assert (other[2] == found[2]).all()
    assert not np.allclose(np.delete(other, 2, 0), np.delete(found, 2, 0))
