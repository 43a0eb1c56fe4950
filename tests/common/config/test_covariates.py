"""The table of clinical covariates: what a configuration may name, what a cell may hold, and what is refused by name."""

import json
import math
from typing import Any

import pytest

from common.config.covariates import COVARIATES, Covariate
from common.config.run import RunConfig, config_from_json, config_from_table
from common.errors import ConfigError

KPS = {"name": "kps", "centre": 80.0, "scale": 15.0, "low": 0.0, "high": 100.0}
SIDE = {"name": "side", "values": ["left", "right"], "aliases": [["l", "left"], ["both", "n/a"]]}


def covariates(*rows: Any) -> tuple[Covariate, ...]:
    return config_from_table({"data": {"covariates": list(rows)}}).data.covariates


def test_by_default_there_are_none_and_an_old_configuration_has_none() -> None:
    table = json.loads(RunConfig().to_json())
    assert table["data"].pop("covariates") == []
    assert config_from_table(table) == RunConfig()


def test_known_ones_by_name_and_others_by_a_table() -> None:
    found = covariates("age", KPS, SIDE)
    assert [row.name for row in found] == ["age", "kps", "side"]
    assert found[0] is COVARIATES["age"] or found[0] == COVARIATES["age"]
    assert covariates({"name": "age", "scale": 10})[0] == Covariate("age", 50.0, 10.0, 0.0, 120.0, "years")


def test_a_configuration_carries_them_whole_so_that_a_release_outlives_the_table() -> None:
    config = config_from_table({"data": {"covariates": ["age", "sex", KPS, SIDE]}})
    assert json.loads(config.to_json())["data"]["covariates"][0]["scale"] == 15.0
    assert config_from_json(config.to_json()) == config
    hash(config)  # rounds are kept by it


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["weight"], r"data\.covariates: expected age, sex, or a table of name, centre.*got 'weight'"),
        ("age", r"data\.covariates: expected a list such as \['age', 'sex'\], got 'age'"),
        (["age", "age"], r"data\.covariates: expected each once, got age, age"),
        ([{"scale": 2.0}], r"data\.covariates: expected age, sex, or a table"),
        ([{"name": "kps"}], r"data\.covariates, 'kps': expected a number with centre and a scale above 0, or a category"),
        ([{"name": "kps", "scale": -1.0}], r"'kps': expected a number with centre and a scale above 0"),
        ([{"name": "kps", "scale": 1.0, "low": 2.0, "high": 1.0}], r"'kps': expected low up to high, got 2\.0 and 1\.0"),
        ([{"name": "kps", "mean": 80.0}], r"Unknown key 'data\.covariates\.mean'"),
        ([{"name": "side", "values": ["left"]}], r"'side': expected a category of two or more different values"),
        ([{"name": "side", "values": ["left", "LEFT"]}], r"'side': expected a category of two or more different"),
        ([{"name": "side", "values": ["left", "right"], "scale": 1.0}], r"'side': expected a category .* and no scale"),
        ([SIDE | {"aliases": [["l", "links"]]}], r"'side': expected aliases \[word, value\].*got \[\['l', 'links'\]\]"),
        ([KPS | {"name": "a=b"}], r"expected the name of a column"),
    ],
)
def test_what_is_wrong_is_refused_by_name(rows: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_from_table({"data": {"covariates": rows}})


@pytest.mark.parametrize(("word", "value"), [("54", 54.0), ("61.5", 61.5), ("89+", 89.0), ("0", 0.0), ("120", 120.0)])
def test_ages(word: str, value: float) -> None:
    assert COVARIATES["age"].read(word) == value


@pytest.mark.parametrize("word", ["54Y", "054Y", "1954", "-1", "121", "nan", "inf", "54,5", "fifty", "12/03/1954"])
def test_an_age_that_is_none_is_not_guessed_at(word: str) -> None:
    assert COVARIATES["age"].read(word) is None
    assert COVARIATES["age"].expected == "a number in years from 0 to 120"


def test_sexes_as_tables_write_them() -> None:
    sex = COVARIATES["sex"]
    assert [sex.read(word) for word in ("F", "f", "female", "Female", "M", "male")] == [0, 0, 0, 0, 1, 1]
    assert all(math.isnan(sex.read(word) or 0.0) for word in ("O", "other"))  # BIDS has it; the model knows two
    assert [sex.read(word) for word in ("1", "2", "w", "X")] == [None] * 4
    assert [sex.show(value) for value in (0.0, 1.0, math.nan)] == ["F", "M", "n/a"]


def test_a_number_without_a_range_may_be_any_that_is_finite() -> None:
    volume = Covariate("volume", centre=0.0, scale=1.0)
    assert (volume.read("-3e5"), volume.read("inf"), volume.expected) == (-3e5, None, "a number")


@pytest.mark.parametrize(("name", "told"), [("subtype", "the target itself"), ("participant_id", "who the patient is")])
def test_the_answer_is_no_covariate(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"data.covariates: '{name}' is {told}"):
        config_from_table({"data": {"covariates": [{"name": name, "scale": 1.0}]}})
