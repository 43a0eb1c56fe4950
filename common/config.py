"""The configuration of one run: frozen dataclasses, filled from TOML, refused by name when wrong.

A file under `configs/` holds only what differs from the defaults below. The defaults are the paper's recipe
(MM-DINOv2, Scholz et al., MICCAI 2025) where it fits a federation, on DINOv2 ViT-S.
"""

import dataclasses
import json
import tomllib
import types
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from common.errors import ConfigError

MODALITIES = ("t1", "t1c", "t2", "flair")


def _ranged(default: float, low: float, high: float) -> Any:
    """A number field that accepts `low <= value <= high`."""
    return field(default=default, metadata={"low": low, "high": high})


def _choice(default: str, *choices: str) -> Any:
    """A text field that accepts one of `choices`."""
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True)
class DataConfig:
    """How a patient's volumes become slices (`common.data`)."""

    modalities: tuple[str, ...] = MODALITIES
    classes: tuple[str, ...] = ("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma")
    label: str = "subtype"  # column of participants.tsv; site.toml may name another
    slices: int = _ranged(5, 1, 64)
    size: int = _ranged(224, 16, 1024)  # pixels
    field_of_view: float = _ranged(112.0, 8.0, 512.0)  # mm
    low_percentile: float = _ranged(1.0, 0.0, 50.0)
    high_percentile: float = _ranged(99.5, 50.0, 100.0)


@dataclass(frozen=True)
class ModelConfig:
    """The frozen backbone and what is trained on it (`common.models`)."""

    backbone: str = "vit_small_patch14_dinov2.lvd142m"  # any timm ViT
    weights: str = "hub"  # "hub", "phantom" (the shipped file), "random", or the path of a local file
    adapter: str = _choice("lora", "lora", "bottleneck", "bitfit", "head", "full")
    rank: int = _ranged(8, 1, 256)
    alpha: float = _ranged(16.0, 0.0, 1024.0)
    targets: tuple[str, ...] = ("qkv",)  # of qkv, proj, fc1, fc2
    blocks: int = _ranged(0, 0, 64)  # adapt the last n blocks; 0: all
    joint_blocks: int = _ranged(0, 0, 64)  # modalities meet in the last n blocks; 0: in all (the paper's)
    train_norms: bool = True
    head_hidden: int = _ranged(128, 0, 4096)  # 0: no hidden layer
    head_bottleneck: int = _ranged(64, 2, 1024)
    prototypes: int = _ranged(0, 0, 65536)  # beyond the classes, for DINO and iBOT alone


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and settings of the loss terms (`common.objectives`)."""

    dino: float = _ranged(1.0, 0.0, 100.0)
    ibot: float = _ranged(1.0, 0.0, 100.0)
    koleo: float = _ranged(0.1, 0.0, 100.0)
    classification: float = _ranged(0.5, 0.0, 100.0)
    class_balance: str = _choice("none", "none", "weights", "prior")  # fixed before training, from the site's own labels
    label_smoothing: float = _ranged(0.1, 0.0, 0.9)
    student_temperature: float = _ranged(0.1, 0.001, 10.0)
    teacher_temperature: float = _ranged(0.07, 0.001, 10.0)
    teacher_temperature_start: float = _ranged(0.04, 0.001, 10.0)
    teacher_momentum: float = _ranged(0.992, 0.0, 1.0)  # rises to 1 over the run (cosine)
    center_momentum: float = _ranged(0.9, 0.0, 1.0)
    masked_modalities: str = _choice("any", "none", "one", "any")  # a student view: 0, exactly 1, or 0 to M-1
    block_mask_share: float = _ranged(0.5, 0.0, 1.0)  # of student views that also get iBOT block masks
    block_mask_low: float = _ranged(0.1, 0.0, 1.0)
    block_mask_high: float = _ranged(0.5, 0.0, 1.0)
    local_crops: int = _ranged(4, 0, 16)
    local_size: float = _ranged(0.5, 0.1, 1.0)  # of the global crop's edge, rounded to whole patches
    global_scale: float = _ranged(0.7, 0.1, 1.0)  # smallest edge of a global crop, of the field of view
    local_scale: float = _ranged(0.3, 0.05, 1.0)
    modality_dropout: float = _ranged(0.5, 0.0, 1.0)  # chance that a student view lacks 1 to m-1 modalities, tokens and all


@dataclass(frozen=True)
class TrainingConfig:
    """One site's local training (`common.training`)."""

    local_epochs: int = _ranged(1, 1, 1000)
    batch_size: int = _ranged(16, 1, 4096)  # patients
    slices_per_step: int = _ranged(1, 1, 64)  # random slices of each patient in a step
    learning_rate: float = _ranged(1e-3, 0.0, 10.0)
    head_learning_rate: float = _ranged(1e-3, 0.0, 10.0)
    weight_decay: float = _ranged(0.04, 0.0, 10.0)
    head_rounds: int = _ranged(0, 0, 100000)  # first rounds that fit the head alone, on features (probing, then tuning)
    head_steps: int = _ranged(50, 1, 100000)  # of the optimizer, in each of them
    warmup_rounds: int = _ranged(1, 0, 10000)
    gradient_clip: float = _ranged(3.0, 0.0, 1e6)  # 0: off
    precision: str = _choice("auto", "auto", "fp32", "bf16")


@dataclass(frozen=True)
class FederationConfig:
    """Rounds, waiting and what the server accepts (`server`)."""

    rounds: int = _ranged(20, 1, 100000)
    strategy: str = _choice("fedavg", "fedavg")
    min_sites: int = _ranged(2, 1, 10000)
    round_timeout: float = _ranged(3600.0, 1.0, 1e6)  # seconds
    wait_for_sites: float = _ranged(300.0, 1.0, 1e6)  # seconds
    round_retries: int = _ranged(2, 0, 100)
    unlabelled_weight: float = _ranged(1.0, 0.0, 1.0)  # weight of an unlabelled patient in the average, next to a labelled one
    max_update_norm: float = _ranged(0.0, 0.0, 1e9)  # of (reply - global), all arrays together; 0: off


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on the external hospital (`common.evaluation`)."""

    bootstrap: int = _ranged(1000, 0, 100000)  # resamples; 0: no intervals
    every: int = _ranged(1, 0, 10000)  # external curve each n rounds, for looking only; 0: only at the end
    baselines: bool = True
    modality_subsets: bool = False
    batch_size: int = _ranged(8, 1, 1024)  # patients


@dataclass(frozen=True)
class RunConfig:
    """One run, whole. Built by `load_config`, checked on construction, travels as JSON."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = _ranged(0, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        _check_ranges(self, "")
        unknown = [m for m in self.data.modalities if m not in MODALITIES]
        if unknown or not self.data.modalities or len(set(self.data.modalities)) != len(self.data.modalities):
            raise ConfigError(
                f"data.modalities: expected some of {', '.join(MODALITIES)}, each once; got {list(self.data.modalities)}."
            )
        if len(self.data.classes) < 2 or len(set(self.data.classes)) != len(self.data.classes):
            raise ConfigError(f"data.classes: expected at least two different names; got {list(self.data.classes)}.")
        wrong = [t for t in self.model.targets if t not in ("qkv", "proj", "fc1", "fc2")]
        if wrong or not self.model.targets:
            raise ConfigError(f"model.targets: expected some of qkv, proj, fc1, fc2; got {list(self.model.targets)}.")

    def to_json(self) -> str:
        """Canonical JSON text: equal configurations give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def load_config(source: Path, settings: tuple[str, ...] = ()) -> RunConfig:
    """Read a TOML file and lay `key=value` settings over it.

    Args:
        source: the TOML file.
        settings: such as `training.local_epochs=2`; the value is TOML, or bare text. A name that is unique among all sections
            may stand alone: `weights=model.safetensors`, `rounds=3`.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or value out of range, named by its dotted key.
    """
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Configuration {source}: cannot be read ({error.strerror}). Name an existing TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration {source}: not valid TOML ({error}).") from error
    for setting in settings:
        _lay_over(table, setting)
    return config_from_table(table)


def config_from_json(text: str) -> RunConfig:
    """Rebuild a `RunConfig` from `RunConfig.to_json`, with the same checks as a TOML file."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"The run configuration is not valid JSON ({error}).") from error
    return config_from_table(table)


def config_from_table(table: dict[str, Any]) -> RunConfig:
    """Build a `RunConfig` from nested plain values; see `load_config` for the errors."""
    config: RunConfig = build(RunConfig, table)
    return config


def build(kind: Any, table: Any, where: str = "") -> Any:
    """Fill the frozen dataclass `kind` from plain values; used for run and site configurations alike.

    Raises:
        ConfigError: names the dotted key, what was expected and what came.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where or 'configuration'}: expected a table, got {table!r}.")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}{key}"
        if key not in known:
            raise ConfigError(f"Unknown key '{name}'. Known here: {', '.join(sorted(known))}.")
        hint = hints[key]
        values[key] = build(hint, value, f"{name}.") if is_dataclass(hint) else _convert(hint, value, name)
    return kind(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check one value against its annotation; lists become tuples, whole numbers may stand for floats."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    origin = get_origin(hint)
    if origin is types.UnionType:
        return None if value is None else _convert(get_args(hint)[0], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(hint)[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(get_args(hint)[1], item, f"{name}.{key}") for key, item in value.items()}
    if origin is None and isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool):
        return value
    raise ConfigError(f"{name}: expected {getattr(hint, '__name__', hint)}, got {value!r}.")


def _check_ranges(config: Any, where: str) -> None:
    """Hold every field against the range or choices of its metadata, sections included."""
    for item in fields(config):
        value, name, rule = getattr(config, item.name), f"{where}{item.name}", item.metadata
        if is_dataclass(value):
            _check_ranges(value, f"{name}.")
        if "low" in rule and not rule["low"] <= value <= rule["high"]:
            raise ConfigError(f"{name}: expected a number from {rule['low']} to {rule['high']}, got {value}.")
        if "choices" in rule and value not in rule["choices"]:
            raise ConfigError(f"{name}: expected one of {', '.join(rule['choices'])}; got {value!r}.")


def _lay_over(table: dict[str, Any], setting: str) -> None:
    """Write one `key=value` into the nested table."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected key=value, such as federation.rounds=5.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    parts = _full_key(key.strip()).split(".")
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting}: '{part}' is no section.")
    table[parts[-1]] = value


def _full_key(key: str) -> str:
    """The dotted key for a name that stands alone, where only one section has it."""
    if "." in key or key in {f.name for f in fields(RunConfig)}:
        return key
    sections = get_type_hints(RunConfig)
    owners = [s for s, kind in sections.items() if is_dataclass(kind) and key in {f.name for f in fields(kind)}]
    if len(owners) == 1:
        return f"{owners[0]}.{key}"
    hint = f" Write one of {', '.join(f'{o}.{key}' for o in owners)}." if owners else ""
    raise ConfigError(f"Unknown key '{key}'.{hint} Keys are section.name, such as federation.rounds.")
