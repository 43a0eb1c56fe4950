"""The standard intensity scale of a run: whose landmarks it is of, and that a resumed run asks nobody."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.run import load_config
from common.data.survey import Answer
from common.errors import FederationError
from common.messages.survey import SURVEY
from server.run.plan import RunPlan
from server.run.standard import NAME, harmonised, mean_standard
from server.strategy.progress import Progress
from simulation import standard as simulated
from simulation.experiment_plan import Experiment
from tests.server.made_up_sites import TINY, plan
from tests.server.run.test_survey import RISING, asked, config, people  # noqa: F401

LOW = tuple(round(mark / 2, 4) for mark in RISING)


def answer_of(patients: int, **scales: tuple[float, ...]) -> Answer:
    return Answer(1, patients, {}, {}, scales)


def test_sites_weigh_as_many_patients_as_they_tell_of(tmp_path: Path) -> None:
    run = plan(tmp_path, tmp_path).config
    answers = {"a": answer_of(30, t1=RISING, t2=LOW), "b": answer_of(10, t1=LOW), "c": answer_of(50)}
    found = {row.name: row.landmarks for row in mean_standard(answers, run)}
    assert found["t1"] == pytest.approx([(30 * a + 10 * b) / 40 for a, b in zip(RISING, LOW, strict=True)], abs=1e-4)
    assert found["t2"] == LOW
    assert set(found) == {"t1", "t2"}


@pytest.fixture
def begin(asked, people, tmp_path, monkeypatch) -> Any:  # noqa: F811
    """begin(resume=False): the plan as the run goes on with it; hospitals a and b have landmarks, c is too small."""
    grids: list[Any] = []
    for site, marks in (("a", RISING), ("b", LOW)):
        people[site][:] = [replace(one, scales={"t1": marks}) for one in people[site]]

    monkeypatch.setattr("tests.server.run.test_survey.survey", lambda grid, *_: grids.append(grid))
    asked()
    out = tmp_path / "run"
    out.mkdir()

    def play(**changes: Any) -> tuple[RunPlan, int]:
        chosen = plan(tmp_path / "data", out, (), sections={"data": {"size": 32, "slices": 2, "harmonise": True}})
        before = len(grids[0].sent)
        found = harmonised(grids[0], replace(chosen, **changes), Progress(out, 1, resumed=False))
        return found, sum(SURVEY in message.content for message in grids[0].sent[before:])

    return play


def test_a_run_asks_its_hospitals_once_and_goes_on_with_what_they_told(begin, tmp_path: Path) -> None:
    found, requests = begin()
    expected = [round((20 * a + 10 * b) / 30, 4) for a, b in zip(RISING, LOW, strict=True)]  # in steps of their minimum
    [row] = found.config.data.standard
    assert (row.name, row.landmarks) == ("t1", pytest.approx(expected, abs=1e-4))
    assert requests == 3
    told = json.loads((tmp_path / "run" / NAME).read_text())
    assert told["sites"] == {"a": 20, "b": 10}
    assert "too few patients" in told["failures"]["c"]
    again, requests = begin(resume=True)
    assert (again.config, requests) == (found.config, 0)
    same, requests = begin(config=found.config)
    assert (same.config, requests) == (found.config, 0)


def test_where_nobody_tells_the_run_ends_with_the_reason(begin, people, tmp_path: Path) -> None:  # noqa: F811
    for site in people:
        (tmp_path / site / "site.toml").write_text('[policy]\nsurvey = ["classes"]\n')
    with pytest.raises(FederationError, match="no site told its landmarks"):
        begin()


def test_an_experiment_has_the_standard_of_its_own_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "tiny.toml"
    source.write_text(TINY)
    settings = ("data.harmonise=true",)
    config = load_config(source, settings)  # noqa: F811
    monkeypatch.setattr(simulated, "read_site", lambda path, *_, **__: type("S", (), {"config": _open(), "root": path}))
    monkeypatch.setattr(simulated, "site_facts", lambda site, _: site.root.name)
    monkeypatch.setattr(
        simulated, "answer", lambda name, *_: answer_of({"a": 30, "b": 10}[name], t1=RISING if name == "a" else LOW)
    )
    one = Experiment(config, source, settings, tmp_path, ("a", "b", "bad"), ("e",), tmp_path, tmp_path, tmp_path)
    said: list[str] = []
    found = simulated.with_own_standard(one, ("bad",), said.append)
    assert found.config.data.standard == mean_standard({"a": answer_of(30, t1=RISING), "b": answer_of(10, t1=LOW)}, config)
    assert load_config(source, found.settings) == found.config
    assert said == ["Standard intensity scale of t1, by a, b."]
    plain = replace(one, config=load_config(source), settings=())
    assert simulated.with_own_standard(plain, (), said.append) is plain


def _open() -> Any:
    from common.config.site import SiteConfig, SitePolicy

    return SiteConfig(policy=SitePolicy.simulation())
