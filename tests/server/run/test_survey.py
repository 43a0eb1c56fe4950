"""Hospitals and the coordinator in this process: who tells what, and what many surveys together tell."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict

import client.round.survey as at_site
from client.round.dispatch import answer
from common.config.run import RunConfig, config_from_table
from common.data.survey import Facts
from common.data.survey import answer as told_of
from common.errors import FederationError
from common.messages.survey import ANSWER, SURVEY, write_answer
from server.report.survey import render_survey, survey_table, write_survey_page
from server.run.survey import NAME, survey
from tests.server.made_up_sites import plan

PATIENTS = {"a": 24, "b": 13, "c": 4}


def somebody(number: int, label: str = "glioblastoma") -> Facts:
    return Facts(
        f"sub-{number}", "t1+flair", label, "40 to 59", "3 to 5 mm", "1 x 1 x 4 mm, 20 x 24", (), {"t1": (1.0, 2.0, 3.0)}
    )


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return plan(tmp_path, tmp_path / "out").config


@pytest.fixture
def people(tmp_path, config, monkeypatch) -> dict[str, list[Facts]]:
    """Everybody, by hospital; a test may change the lists."""
    found = {}
    classes = config.task.classes
    for site, many in PATIENTS.items():
        for number in range(many):
            (tmp_path / site / f"sub-{number}" / "anat").mkdir(parents=True)
            (tmp_path / site / f"sub-{number}" / "anat" / "x_T1w.nii.gz").touch()
        (tmp_path / site / "site.toml").write_text('[policy]\nsurvey = ["*"]\n')
        found[site] = [somebody(number, classes[number % 2]) for number in range(many)]
    monkeypatch.setattr(at_site, "site_facts", lambda site, _: found[site.root.name])
    return found


@pytest.fixture
def asked(tmp_path, local_grid, people, config, monkeypatch):
    """asked(config): survey.json."""

    def node(site: str):
        return lambda message: answer(message.content, {"site-config": str(tmp_path / site / "site.toml")}, RecordDict())

    grid = local_grid({number: node(site) for number, site in enumerate(PATIENTS, start=1)})
    nodes = [type("Node", (), {"name": site, "node_id": number}) for number, site in enumerate(PATIENTS, start=1)]
    monkeypatch.setattr(type(grid), "get_nodes", lambda _: nodes, raising=False)
    return lambda chosen=config, out="survey": survey(grid, chosen, _folder(tmp_path / out))


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def test_hospitals_tell_in_steps_of_their_minimum_and_small_ones_nothing(asked, tmp_path, config):
    found = asked()
    first, second = config.task.classes[:2]
    assert found["sites"]["a"]["patients"] == 20
    assert found["sites"]["a"]["topics"]["classes"][first] == 10
    assert found["sites"]["b"]["topics"]["classes"][second] == 0  # 6 of 13
    assert found["total"]["patients"] == 30
    assert "too few patients" in found["failures"]["c"]
    assert json.loads((tmp_path / "survey" / NAME).read_text()) == found
    page = render_survey(found)
    assert "&lt; 10" in page
    assert "too few patients" in page
    assert write_survey_page(tmp_path / "survey", found).stat().st_size > 1000
    assert survey_table(found).row_count > 5


def test_nothing_is_told_by_default_and_only_named_topics_then(asked, tmp_path):
    (tmp_path / "b" / "site.toml").write_text("")
    (tmp_path / "a" / "site.toml").write_text('[policy]\nsurvey = ["cl*"]\n')
    found = asked()
    assert "answers no surveys" in found["failures"]["b"]
    assert list(found["sites"]["a"]["topics"]) == ["classes"]
    assert found["sites"]["a"]["landmarks"] == {}
    (tmp_path / "a" / "site.toml").write_text("")
    with pytest.raises(FederationError, match="No hospital answered"):
        asked()


def test_a_hospital_with_a_privacy_budget_tells_nothing(asked, tmp_path):
    (tmp_path / "a" / "site.toml").write_text('[policy]\nsurvey = ["*"]\n[privacy]\nepsilon = 8.0\n')
    assert "without differential privacy" in asked()["failures"]["a"]


def test_the_difference_of_two_surveys_is_of_no_fewer_patients_than_the_minimum(asked, people, config):
    before = asked()["sites"]["a"]
    people["a"][:] = [somebody(i, config.task.classes[0]) for i in range(33)]  # 9 come, 12 have another class
    people["b"].extend(somebody(i, config.task.classes[0]) for i in range(20, 29))  # 9 come
    after = asked()["sites"]
    assert after["a"] != before
    assert after["b"]["patients"] == 10  # of 22, as before: 9 are fewer than the minimum
    people["b"].append(somebody(29))
    assert asked()["sites"]["b"]["patients"] == 20


def test_another_survey_of_the_same_patients_is_refused(asked, people, config):
    asked()
    classes = {"classes": list(config.task.classes[::-1])}
    other = config_from_table({**json.loads(config.to_json()), "task": {"name": "classification", **classes}})
    with pytest.raises(FederationError, match="survey with other groups about the same patients"):
        asked(other)
    people["a"].extend(somebody(i) for i in range(100, 110))
    assert list(asked(other)["sites"]) == ["a"]


def test_an_answer_with_more_than_the_policy_lets_out_does_not_leave(asked, tmp_path, monkeypatch):
    (tmp_path / "a" / "site.toml").write_text('[policy]\nsurvey = ["classes"]\n')
    real = told_of
    monkeypatch.setattr(at_site, "answer", lambda facts, run, least, _: real(facts, run, least, ["ages"]))
    monkeypatch.setattr(at_site, "settled", lambda path, facts, told, asked: told)
    assert asked()["failures"]["a"] == "the reply holds more than was agreed"
    monkeypatch.setattr(at_site, "answer", lambda facts, run, least, topics: real(facts, run, 1, topics))
    with pytest.raises(FederationError, match="more than was agreed"):
        asked()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"least": 10, "patients": 21, "topics": {}, "landmarks": {}}',
        '{"least": 10, "patients": 20, "topics": {"names": {}}, "landmarks": {}}',
        '{"least": 10, "patients": 20, "topics": {"ages": {"a/b": 10}}, "landmarks": {}}',
        '{"least": 10, "patients": 20, "topics": {"ages": {"x": 30}}, "landmarks": {}}',
        '{"least": 10, "patients": 20, "topics": {}, "landmarks": {"t1": [NaN, 1, 2]}}',
        '{"least": 10, "patients": 20, "topics": {}, "landmarks": {}, "more": 1}',
        '{"least": 10, "patients": 20, "topics": {}, "landmarks": {}, "scales": {"t1": [0.1, 0.2]}}',
        '{"least": 10, "patients": 20, "topics": {}, "landmarks": {}, "scales": {"t1": [9, 8, 7, 6, 5, 4, 3, 2, 1]}}',
    ],
)
def test_an_answer_of_another_form_costs_its_site_its_part(asked, monkeypatch, text):
    real = write_answer

    def other(*given):
        content = real(*given)
        content[SURVEY] = ConfigRecord({ANSWER: text})
        return content

    monkeypatch.setattr(at_site, "write_answer", other)
    with pytest.raises(FederationError, match="more than was agreed"):
        asked()


RISING = tuple(round(0.1 * k, 1) for k in range(1, 10))


def test_landmarks_of_a_scale_leave_under_the_topic_of_intensities_and_no_other(asked, tmp_path, people, monkeypatch):
    people["a"][:] = [replace(one, scales={"t1": RISING}) for one in people["a"]]
    assert asked()["sites"]["a"]["scales"] == {"t1": list(RISING)}
    (tmp_path / "b" / "site.toml").write_text('[policy]\nsurvey = ["classes"]\n')
    (tmp_path / "a" / "site.toml").write_text('[policy]\nsurvey = ["classes"]\n')
    monkeypatch.setattr(at_site, "settled", lambda path, facts, told, asked: replace(told, scales={"t1": RISING}))
    with pytest.raises(FederationError, match="more than was agreed"):
        asked()


def test_facts_that_change_are_seen():
    assert somebody(1).digest != somebody(1, "other").digest
    assert somebody(1).digest == replace(somebody(1)).digest
