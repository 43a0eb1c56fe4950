"""Configurations of 2a60dec: its files, the JSON that its runs and models hold, and its words after `--set`."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.cli import config_path
from common.config.run import config_from_json, load_config
from tests.compatibility.conftest import OLD

FILES = sorted((OLD / "configs").glob("*.toml"))
BETTER_SINCE = ("demo", "private", "private-real", "real")  # recipes of the same name that do another thing today, on purpose
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_all_are_here() -> None:
    assert [file.stem for file in FILES] == ["demo", "dinov2", "pretrain", "private-real", "private", "real"]


@every_file
def test_the_file_and_the_json_that_was_made_of_it_are_one_configuration(file: Path) -> None:
    assert load_config(file) == config_from_json(file.with_suffix(".json").read_text())


@pytest.mark.parametrize("file", [file for file in FILES if file.stem not in BETTER_SINCE], ids=lambda file: file.stem)
def test_the_recipe_of_the_same_name_is_still_the_same(file: Path) -> None:
    assert load_config(file) == load_config(config_path(file.stem))


@every_file
def test_every_old_key_may_be_set_to_what_it_was(file: Path) -> None:
    assert load_config(file, tuple(settings(json.loads(file.with_suffix(".json").read_text())))) == load_config(file)


@every_file
def test_an_old_json_is_read_again_as_todays(file: Path) -> None:
    config = config_from_json(file.with_suffix(".json").read_text())
    assert config_from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("recipe", "section", "key", "value"),
    [
        ("demo", "model", "rank", 3),
        ("demo", "model", "targets", ["proj"]),
        ("demo", "model", "lora_factor", "b"),
        ("demo", "objective", "koleo", 0.5),
        ("demo", "objective", "dino", 0.7),
        ("demo", "objective", "label_smoothing", 0.2),
        ("demo", "objective", "teacher_temperature", 0.05),
        ("demo", "data", "label", "grade"),
        ("demo", "data", "classes", ["a", "b"]),
        ("demo", "federation", "unlabelled_weight", 0.9),
        ("private", "privacy", "consistency", 0.9),  # without privacy it had no effect
    ],
)
def test_an_old_key_that_is_changed_changes_the_configuration(recipe: str, section: str, key: str, value: Any) -> None:
    before = json.loads((OLD / "configs" / f"{recipe}.json").read_text())
    changed = {**before, section: {**before[section], key: value}}
    assert config_from_json(json.dumps(changed)) != config_from_json(json.dumps(before))


def settings(table: dict[str, Any], prefix: str = "") -> list[str]:
    """Every value as `--set` takes it: JSON's words for numbers, texts, lists and truths are TOML's, too."""
    lines = []
    for key, value in table.items():
        inside = isinstance(value, dict)
        lines += settings(value, f"{prefix}{key}.") if inside else [f"{prefix}{key}={json.dumps(value)}"]
    return lines
