"""`--set` over files of today and of 2a60dec: the last word counts, whichever words it is in."""

from pathlib import Path

import pytest

from common.adapters.adapter import Adapter
from common.adapters.bottleneck import Bottleneck
from common.adapters.dora import DoRA
from common.adapters.lora import LoRA
from common.aggregation.fedavgm import FedAvgM
from common.cli import config_path
from common.config.run import load_config
from common.errors import ConfigError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "2a60dec" / "configs"
PRIVATE = LoRA(rank=4, factor="b")  # what private.toml says, in either words


def weights(file: Path, *settings: str) -> dict[str, float]:
    return {term.name: term.weight for term in load_config(file, settings).objective.terms}


@pytest.mark.parametrize("file", [OLD / "private.toml", config_path("private")], ids=["old", "new"])
@pytest.mark.parametrize(
    ("settings", "adapter"),
    [
        ((), PRIVATE),
        (("rank=2",), LoRA(rank=2, factor="b")),
        (("model.rank=2",), LoRA(rank=2, factor="b")),
        (("model.adapter.rank=2",), LoRA(rank=2, factor="b")),
        (("factor=both",), LoRA(rank=4)),
        (("lora_factor=alternate",), LoRA(rank=4, factor="alternate")),
        (("model.lora_factor=alternate", "rank=3"), LoRA(rank=3, factor="alternate")),
        (('model.adapter={name="dora"}',), DoRA()),
    ],
)
def test_an_adapters_settings(file: Path, settings: tuple[str, ...], adapter: Adapter) -> None:
    assert load_config(file, settings).model.adapter == adapter


@pytest.mark.parametrize("settings", [("rank=4", "adapter=bottleneck"), ("adapter=bottleneck", "model.rank=4")])
def test_the_order_of_a_kind_and_its_settings_does_not_matter(settings: tuple[str, ...]) -> None:
    assert load_config(config_path("demo"), settings).model.adapter == Bottleneck(4)


def test_the_order_of_a_strategy_and_its_settings_does_not_matter() -> None:
    for settings in (("momentum=0.5", "strategy=fedavgm"), ("strategy=fedavgm", "momentum=0.5")):
        assert load_config(config_path("demo"), settings).federation.strategy == FedAvgM(momentum=0.5)


@pytest.mark.parametrize("file", [OLD / "demo.toml", config_path("demo")], ids=["old", "new"])
def test_weights_of_terms(file: Path) -> None:
    before = weights(file)
    assert before["dino"] == 0.1
    for setting in ("dino=0.2", "objective.dino=0.2", "objective.terms.dino.weight=0.2"):
        assert weights(file, setting) == before | {"dino": 0.2}
    terms = {term.name: term for term in load_config(file, ("center_momentum=0.8", "class_balance=none")).objective.terms}
    assert vars(terms["dino"])["center_momentum"] == vars(terms["ibot"])["center_momentum"] == 0.8
    assert vars(terms["classification"])["class_balance"] == "none"


@pytest.mark.parametrize("file", [OLD / "private.toml", config_path("private")], ids=["old", "new"])
def test_one_term_set_leaves_the_others_in_a_private_run(file: Path) -> None:
    before = weights(file)
    assert before["consistency"] == 0.3
    assert weights(file, "fedprox=0.1") == before | {"fedprox": 0.1}
    assert weights(file, "privacy.consistency=0.1") == before | {"consistency": 0.1}


def test_an_earlier_name_of_the_classes() -> None:
    assert load_config(config_path("grade"), ('data.classes=["2","4"]',)).task.classes == ("2", "4")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("adapter=dora", r"'model\.adapter\.factor'.*model\.adapter is dora.*lora has it.*begin anew with model\.adapter = "),
        ("momentum=0.5", r"'federation\.strategy\.momentum'. Known here: no settings .*fedavgm has it"),
        ("federation=3", r"^federation: expected a table, got 3"),
        ("seed.x=1", r"'seed'|Unknown key|expected"),
        ("nonsense=1", r"Unknown key 'nonsense'"),
        ("nonsense", r"expected key=value"),
    ],
)
def test_what_is_wrong_is_refused_by_name(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(config_path("private"), (setting,))
