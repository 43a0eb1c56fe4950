import contextlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.adapters.lora import LoRA
from common.cli import CONFIGS, config_path
from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.errors import ConfigError


def test_every_shipped_configuration_loads() -> None:
    names = sorted(p.stem for p in CONFIGS.glob("*.toml"))
    assert {"demo", "real", "dinov2", "pretrain"} <= set(names)
    for name in names:
        load_config(config_path(name))


def test_json_and_back_is_the_same_configuration() -> None:
    config = load_config(config_path("demo"), ("rounds=3", "targets=['qkv','fc1']"))
    assert config_from_json(config.to_json()) == config
    assert config.federation.rounds == 3
    assert config.model.adapter == LoRA(targets=("qkv", "fc1"))


def test_one_field_of_view_or_several_and_the_axes_travel() -> None:
    several = load_config(config_path("demo"), ("axes=['coronal','axial']", "field_of_view=[80,112]"))
    assert (several.data.axes, several.data.field_of_view) == (("coronal", "axial"), (80.0, 112.0))
    assert config_from_json(several.to_json()) == several
    before = json.loads(load_config(config_path("demo")).to_json())
    assert before["data"].pop("axes") == ["axial"]  # a run of before does not name them
    assert before["data"]["field_of_view"] == 112.0
    assert config_from_json(json.dumps(before)) == load_config(config_path("demo"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.rnak=4", "Unknown key 'model.rnak'"),
        ("learnin_rate=1", "Unknown key 'learnin_rate'"),
        ("batch_size=4", "training.batch_size, evaluation.batch_size"),
        ("training.batch_size=0", "training.batch_size: expected a number from 1"),
        ("training.batch_size=2.5", "training.batch_size: expected a whole number, got 2.5"),
        ("training.batch_size=true", "training.batch_size: expected a whole number, got True"),
        ("adapter=ia3", "model.adapter: expected one of lora"),
        ("factor=a", "model.adapter.factor: expected one of both, b, alternate"),
        ("modalities=['t1','pet']", "data.modalities: expected some of t1"),
        (
            "axes=['axial','oblique']",
            "data.axes: expected some of axial, coronal, sagittal, volume, each once; got ['axial', 'oblique']",
        ),
        ("axes=['axial','axial']", "data.axes: expected some of axial"),
        ("axes=[]", "data.axes: expected some of axial"),
        ("field_of_view=[80,7]", "data.field_of_view: expected a number from 8.0 to 512.0, got 7.0"),
        ("field_of_view=[80]", "data.field_of_view: expected a number, or a list of 2 to 4, each once (mm); got [80.0]"),
        ("field_of_view=[80,112,80]", "data.field_of_view: expected a number, or a list"),
        ("field_of_view=[60,70,80,90,100]", "data.field_of_view: expected a number, or a list"),
        ("field_of_view=[80,'wide']", "data.field_of_view: expected a number, got 'wide'"),
        ("field_of_view=wide", "data.field_of_view: expected a number, got 'wide'"),
        ("classes=['one']", "task.classes: expected at least two"),
        ("targets=['qqq']", "model.adapter.targets: expected some of"),
        ("data=3", "data: expected a table"),
        ("learning_rate=nan", "training.learning_rate"),
        ("wire=int4", "federation.wire: expected one of float32, bf16, int8"),
        ("rounds", "expected key=value"),
    ],
)
def test_wrong_settings_are_refused_by_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config_path("demo"), (setting,))
    assert said in str(caught.value)


def test_fewer_bits_and_masked_sums_are_refused_together() -> None:
    secure = ("secure.enabled=true", "evaluation.holdout=0")
    load_config(config_path("demo"), ("federation.wire=int8",))
    with pytest.raises(ConfigError, match="cannot run with secure"):
        load_config(config_path("demo"), (*secure, "federation.wire=int8"))


@pytest.mark.parametrize("setting", ["axes=['axial','coronal']", "axes=['sagittal']", "field_of_view=[80,112]"])
def test_public_features_are_of_the_usual_slices(setting: str) -> None:
    assert load_config(config_path("private")).model.public_features
    with pytest.raises(ConfigError, match=r"model\.public_features cannot run with data\.axes"):
        load_config(config_path("private"), (setting,))
    load_config(config_path("private"), ("field_of_view=80",))


@pytest.mark.parametrize("adapter", ["bottleneck", "bitfit", "head", "full"])
@pytest.mark.parametrize("factor", ["b", "alternate"])
def test_a_factor_of_lora_without_lora_is_refused_by_name(adapter: str, factor: str) -> None:
    for key in ("factor", "model.lora_factor"):
        assert load_config(config_path("demo"), (f"{key}={factor}",)).model.adapter == LoRA(factor=factor)
        with pytest.raises(ConfigError, match=r"Unknown key 'model\.adapter\.factor'"):
            load_config(config_path("demo"), (f"adapter={adapter}", f"{key}={factor}"))
    load_config(config_path("demo"), (f"adapter={adapter}", "model.lora_factor=both"))


def test_a_file_that_is_no_toml_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="demo"):
        config_path("no-such-name")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["data", "model", "training", "seed", "x"]) | st.text(max_size=5)


@given(st.dictionaries(_KEYS, _VALUES | st.dictionaries(st.sampled_from(["size", "rank", "adapter", "classes"]), _VALUES)))
def test_any_table_is_a_configuration_or_a_clear_refusal(table: dict[str, object]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(config_from_table(table), RunConfig)


@given(st.text(max_size=40))
def test_any_setting_text_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(config_path("demo"), (text,)), RunConfig)


def test_files_hold_only_known_sections() -> None:
    for path in CONFIGS.glob("*.toml"):
        assert set(tomllib.loads(path.read_text())) <= set(RunConfig.__dataclass_fields__)


def test_a_private_run_holds_no_patients_back():
    bounded = {"koleo": 0.0, "dino": 0.0, "ibot": 0.0, "local_crops": 0}
    table = {"privacy": {"enabled": True}, "objective": bounded}
    assert config_from_table(table).evaluation.holdout == 0
    with pytest.raises(ConfigError, match=r"evaluation\.holdout = 0\.2 cannot run with privacy\.enabled"):
        config_from_table(table | {"evaluation": {"holdout": 0.2}})


def test_a_run_that_hides_hospitals_publishes_no_sums_of_theirs():
    table = {"site_level": {"enabled": True}}
    assert config_from_table(table).site_level.enabled
    with pytest.raises(ConfigError, match=r"evaluation\.holdout = 0\.2 cannot run with site_level\.enabled"):
        config_from_table(table | {"evaluation": {"holdout": 0.2}})


@pytest.mark.parametrize("setting", [{"holdout": 0.6}, {"holdout": -0.1}, {"coverage": 1.0}, {"ood_rate": 0.0}])
def test_shares_of_patients_have_bounds(setting):
    with pytest.raises(ConfigError, match=f"evaluation.{next(iter(setting))}"):
        config_from_table({"evaluation": setting})


@pytest.mark.parametrize("name", ["demo", "real", "dinov2"])
def test_the_recipes_hold_a_fifth_back(name):
    assert load_config(CONFIGS / f"{name}.toml").evaluation.holdout == 0.2


def test_head_rounds_that_would_train_no_head_are_refused() -> None:
    words = r"training\.head_rounds = 6 needs objective\.terms\.classification\.weight above 0.*training\.head_rounds = 0"
    with pytest.raises(ConfigError, match=words):
        load_config(config_path("demo"), ("classification=0",))
    assert (
        load_config(
            config_path("demo"), ("classification=0", "head_rounds=0", "centre_features=false", 'pooling="mean"')
        ).training.head_rounds
        == 0
    )
