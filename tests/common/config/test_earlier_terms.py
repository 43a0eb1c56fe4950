"""Loss terms under the keys that they had at 2a60dec, and on the command line."""

from pathlib import Path
from typing import Any

import pytest

from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.errors import ConfigError

# Of RunConfig.to_json() at 2a60dec: its defaults, where they matter here.
OBJECTIVE = {
    "dino": 1.0,
    "ibot": 1.0,
    "koleo": 0.1,
    "classification": 0.5,
    "class_balance": "none",
    "label_smoothing": 0.1,
    "center_momentum": 0.9,
    "local_crops": 4,
}
PRIVATE = {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "local_crops": 0}


def weights(config: RunConfig) -> dict[str, float]:
    return {term.name: term.weight for term in config.objective.running()}


def setting(config: RunConfig, term: str, key: str) -> Any:
    return next(getattr(one, key) for one in config.objective.terms if one.name == term)


def test_the_defaults_are_what_they_were() -> None:
    old = {"objective": OBJECTIVE, "privacy": {"enabled": False, "consistency": 0.3}}
    assert config_from_table(old) == RunConfig()


def test_every_setting_finds_its_term() -> None:
    changed = {"dino": 0.2, "ibot": 0.3, "koleo": 0.4, "classification": 0.6, "class_balance": "prior", "label_smoothing": 0.05}
    config = config_from_table({"objective": {**OBJECTIVE, **changed, "center_momentum": 0.7}})
    assert weights(config) == {"classification": 0.6, "koleo": 0.4, "dino": 0.2, "ibot": 0.3}
    assert setting(config, "classification", "class_balance") == "prior"
    assert setting(config, "classification", "label_smoothing") == 0.05
    assert setting(config, "dino", "center_momentum") == setting(config, "ibot", "center_momentum") == 0.7
    assert config_from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("privacy", "weight"),
    [
        ({"enabled": True}, 0.3),
        ({"enabled": True, "consistency": 0.5}, 0.5),
        ({"enabled": True, "consistency": 0.0}, None),
        ({"enabled": False, "consistency": 0.5}, None),
        ({"consistency": 0.5}, None),
        ({}, None),
    ],
)
def test_consistency_ran_in_private_rounds_alone(privacy: dict[str, object], weight: float | None) -> None:
    assert weights(config_from_table({"objective": PRIVATE, "privacy": privacy})).get("consistency") == weight


def test_what_was_refused_still_is() -> None:
    with pytest.raises(ConfigError, match=r"objective\.terms\.dino\.weight: expected a number from 0\.0 to 100\.0, got -1"):
        config_from_table({"objective": {"dino": -1}})
    with pytest.raises(ConfigError, match=r"objective\.terms\.koleo\.weight: expected a number, got 'x'"):
        config_from_table({"objective": {"koleo": "x"}})
    with pytest.raises(ConfigError):
        config_from_table({"objective": {"terms": 3, "dino": 0.1}})
    with pytest.raises(ConfigError, match=r"objective\.terms\.dino: expected a table"):
        config_from_table({"objective": {"terms": {"dino": 3}}})


@pytest.mark.parametrize("given", ["dino=0", "objective.dino=0", "objective.terms.dino=0", "objective.terms.dino.weight=0"])
def test_a_term_on_the_command_line(given: str, tmp_path: Path) -> None:
    """By today's key, by its name alone and by its earlier key; the other settings of the file stay."""
    file = tmp_path / "run.toml"
    file.write_text("[objective.terms]\ndino = { weight = 0.1, center_momentum = 0.5 }\nkoleo.weight = 0.2\n")
    config = load_config(file, (given,))
    assert weights(config) == {"classification": 0.5, "koleo": 0.2, "ibot": 1.0}
    assert setting(config, "dino", "center_momentum") == 0.5


def test_other_settings_of_terms_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("")
    assert setting(load_config(file, ("class_balance=prior",)), "classification", "class_balance") == "prior"
    assert setting(load_config(file, ("objective.terms.fedprox={weight=0.1}",)), "fedprox", "weight") == 0.1
    with pytest.raises(ConfigError, match=r"Write one of objective\.terms\.classification\.weight"):
        load_config(file, ("weight=1",))


def test_an_earlier_key_over_a_private_recipe_of_today(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    zero = "".join(f"{name}.weight = 0\n" for name in ("dino", "ibot", "koleo"))
    file.write_text(f"[privacy]\nenabled = true\n[objective]\nlocal_crops = 0\n[objective.terms]\n{zero}")
    assert weights(load_config(file, ("objective.classification=1",))) == {"classification": 1.0}
    assert weights(load_config(file, ("privacy.consistency=0.4",))) == {"classification": 0.5, "consistency": 0.4}
