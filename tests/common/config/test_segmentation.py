"""A run that segments: what does not fit it is refused by name, and its own settings are refused elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.classes import require_classes
from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.config.sections import DataConfig
from common.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[3]
TABLE: dict[str, Any] = {
    "data": {"through": "brain"},
    "task": {"name": "segmentation"},
    "objective": {"terms": {name: {"weight": 0.0} for name in ("classification", "dino", "ibot", "koleo")}},
    "evaluation": {"every": 0},
}
TABLE["objective"]["terms"]["segmentation"] = {"weight": 1.0}


def changed(section: str, key: str, value: object) -> dict[str, Any]:
    return {**TABLE, section: {**TABLE.get(section, {}), key: value}}


def terms(**weights: float) -> dict[str, Any]:
    after = {**TABLE["objective"]["terms"], **{name: {"weight": weight} for name, weight in weights.items()}}
    return {**TABLE, "objective": {"terms": after}}


def test_the_shipped_configuration_is_one() -> None:
    config = load_config(CHECKOUT / "configs" / "segmentation.toml")
    assert config.task.decoder is not None
    assert config_from_json(config.to_json()) == config
    assert (config.data.through, config.reads_masks) == ("brain", True)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (changed("data", "through", "tumour"), r"data\.through = 'tumour'"),
        (changed("data", "axes", ["axial", "coronal"]), r"data\.axes"),
        (changed("data", "field_of_view", [80.0, 112.0]), r"data\.axes"),
        (changed("data", "covariates", ["age"]), r"data\.covariates = \['age'\]"),
        (terms(segmentation=0.0), r"objective\.terms\.segmentation\.weight = 0\.0"),
        (terms(classification=0.5), r"objective\.terms\.classification\.weight = 0\.5"),
        (terms(fixmatch=0.5), r"objective\.terms\.fixmatch\.weight = 0\.5"),
        (terms(mean_teacher=0.5), r"objective\.terms\.mean_teacher\.weight = 0\.5"),
        (terms(dino=0.1), r"model\.prototypes = 0.*64"),
        (changed("training", "head_rounds", 1), r"training\.head_rounds = 1.*model\.adapter = \"head\""),
        (changed("personal", "ditto_lambda", 0.1), "personal"),
        (changed("privacy", "enabled", True), "patients of a batch together"),
        (changed("evaluation", "holdout", 0.2), r"evaluation\.holdout = 0\.2"),
        (changed("evaluation", "stage", "best"), r"evaluation\.stage = 'best'"),
        (changed("evaluation", "every", 1), r"evaluation\.every = 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(table: dict[str, Any], named: str) -> None:
    assert config_from_table(TABLE).task.name == "segmentation"
    with pytest.raises(ConfigError, match=named):
        config_from_table(table)


def test_other_runs_have_no_decoder_to_train() -> None:
    with pytest.raises(ConfigError, match=r'task\.name = "classification" has none'):
        config_from_table({"objective": {"terms": {"segmentation": {"weight": 1.0}}}})


def test_a_setting_of_the_task_alone_keeps_the_task(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[task]\nname = "segmentation"\n[data]\nthrough = "brain"\n[evaluation]\nevery = 0\n')
    weights = tuple(f"objective.terms.{n}.weight=0" for n in ("classification", "dino", "ibot", "koleo"))
    found = load_config(tmp_path / "a.toml", (*weights, "objective.terms.segmentation.weight=1", "task.decoder.width=32"))
    assert found.task.name == "segmentation"
    assert getattr(found.task.decoder, "width", 0) == 32


def test_slices_that_were_cached_before_there_was_a_choice_stay_good() -> None:
    assert not {"through", "shift"} & DataConfig().of_slices().keys()
    assert DataConfig(through="brain").of_slices()["through"] == "brain"
    assert DataConfig(shift=3.0).of_slices()["shift"] == 3.0
    assert RunConfig().reads_masks is False


def test_what_knows_classes_only_says_so() -> None:
    with pytest.raises(ConfigError, match=r'Export knows runs that predict a class, and task\.name is "segmentation"'):
        require_classes(config_from_table(TABLE), "Export")
    require_classes(RunConfig(), "Export")
    with pytest.raises(ConfigError, match="gives no class of a patient"):
        config_from_table(TABLE).task.evaluate(np.zeros(1), np.zeros((1, 1)), bootstrap=0, generator=np.random.default_rng(0))
