"""The configuration of one run: frozen dataclasses from TOML; a wrong setting is refused by name.

A file under `configs/` holds only what differs from the defaults below. The defaults are the paper's recipe
(MM-DINOv2, Scholz et al., MICCAI 2025) where it fits a federation, on DINOv2 ViT-S.
"""

import json
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.adapters.adapter import Adapter
from common.adapters.registry import ADAPTERS
from common.aggregation.aggregator import Aggregator
from common.aggregation.registry import AGGREGATORS
from common.config.earlier import of_today
from common.config.modalities import DEFAULT_MODALITIES, MODALITIES
from common.config.overrides import lay_over
from common.errors import ConfigError
from common.objectives.term import Term
from common.objectives.terms import TERMS
from common.schema import build, check_ranges, choice, dotted_names, many_of, one_of, plain, ranged
from common.tasks.registry import TASKS
from common.tasks.task import Task


@dataclass(frozen=True)
class DataConfig:
    """How a patient's volumes become slices (`common.data`)."""

    modalities: tuple[str, ...] = DEFAULT_MODALITIES  # of `common.config.modalities.MODALITIES`
    slices: int = ranged(5, 1, 64)
    size: int = ranged(224, 16, 1024)  # pixels
    field_of_view: float = ranged(112.0, 8.0, 512.0)  # mm
    low_percentile: float = ranged(1.0, 0.0, 50.0)
    high_percentile: float = ranged(99.5, 50.0, 100.0)


@dataclass(frozen=True)
class ModelConfig:
    """The frozen backbone and what is trained on it (`common.models`, `common.adapters`)."""

    backbone: str = "vit_small_patch14_dinov2.lvd142m"  # any timm ViT
    weights: str = "hub"  # "hub", "phantom" (the shipped file), "random", or the path of a local file
    adapter: Adapter = one_of("lora", ADAPTERS)
    blocks: int = ranged(0, 0, 64)  # adapt the last n blocks; 0: all
    joint_blocks: int = ranged(0, 0, 64)  # modalities meet in the last n blocks; 0: in all (the paper's)
    train_norms: bool = True
    train_tokens: bool = True  # modality embeddings and mask token; without them nothing flows back below the adapted blocks
    head_hidden: int = ranged(128, 0, 4096)  # 0: no hidden layer
    head_bottleneck: int = ranged(64, 2, 1024)
    prototypes: int = ranged(0, 0, 65536)  # beyond the classes, for DINO and iBOT alone


@dataclass(frozen=True)
class ObjectiveConfig:
    """The terms of the loss (`common.objectives`), what they share, and the views that they are given."""

    terms: tuple[Term, ...] = many_of(TERMS)
    student_temperature: float = ranged(0.1, 0.001, 10.0)
    teacher_temperature: float = ranged(0.07, 0.001, 10.0)
    teacher_temperature_start: float = ranged(0.04, 0.001, 10.0)
    teacher_momentum: float = ranged(0.992, 0.0, 1.0)  # rises to 1 over the run (cosine)
    masked_modalities: str = choice("any", "none", "one", "any")  # a student view: 0, exactly 1, or 0 to M-1
    block_mask_share: float = ranged(0.5, 0.0, 1.0)  # of student views that also get iBOT block masks
    block_mask_low: float = ranged(0.1, 0.0, 1.0)
    block_mask_high: float = ranged(0.5, 0.0, 1.0)
    local_crops: int = ranged(4, 0, 16)
    local_size: float = ranged(0.5, 0.1, 1.0)  # of the global crop's edge, rounded to whole patches
    global_scale: float = ranged(0.7, 0.1, 1.0)  # smallest edge of a global crop, of the field of view
    local_scale: float = ranged(0.3, 0.05, 1.0)
    # Chance that a student view lacks 1 to m-1 modalities, tokens and all; above 0, head rounds see patients that lack some, too.
    modality_dropout: float = ranged(0.5, 0.0, 1.0)

    def running(self) -> tuple[Term, ...]:
        """The terms whose weight is above 0."""
        return tuple(term for term in self.terms if term.weight > 0)

    def without(self, name: str) -> "ObjectiveConfig":
        """The same with one term's weight at 0."""
        return replace(self, terms=tuple(replace(term, weight=0.0) if term.name == name else term for term in self.terms))


@dataclass(frozen=True)
class TrainingConfig:
    """One site's local training (`common.training`)."""

    local_epochs: int = ranged(1, 1, 1000)
    batch_size: int = ranged(16, 1, 4096)  # patients
    slices_per_step: int = ranged(1, 1, 64)  # random slices of each patient in a step
    learning_rate: float = ranged(1e-3, 0.0, 10.0)
    head_learning_rate: float = ranged(1e-3, 0.0, 10.0)
    weight_decay: float = ranged(0.04, 0.0, 10.0)
    head_rounds: int = ranged(0, 0, 100000)  # first rounds that fit the head alone, on features (probing, then tuning)
    head_steps: int = ranged(50, 1, 100000)  # of the optimizer, in each of them
    warmup_rounds: int = ranged(1, 0, 10000)
    gradient_clip: float = ranged(3.0, 0.0, 1e6)  # 0: off
    precision: str = choice("auto", "auto", "fp32", "bf16")


@dataclass(frozen=True)
class PrivacyConfig:
    """Patient-level differential privacy (`common.privacy`).

    `sample_rate` and `steps` stand in the place of `training.batch_size` and `training.local_epochs`.
    """

    enabled: bool = False
    noise_multiplier: float = ranged(1.0, 0.0, 1000.0)  # of max_grad_norm; 0: none, and no protection
    max_grad_norm: float = ranged(1.0, 1e-6, 1e6)  # the largest share of one patient
    sample_rate: float = ranged(0.1, 1e-6, 1.0)  # chance of each patient to be in a step
    steps: int = ranged(10, 1, 100000)  # in each round
    delta: float = ranged(1e-3, 1e-12, 0.5)  # of the report; a hospital's own budget has its own
    gradients: str = choice("auto", "auto", "loop", "vmap")  # auto: vmap on a GPU


@dataclass(frozen=True)
class FederationConfig:
    """Rounds, time limits, and the limits on what the server accepts (`server`)."""

    rounds: int = ranged(20, 1, 100000)
    strategy: Aggregator = one_of("fedavg", AGGREGATORS)  # how changes become the next arrays (`common.aggregation`)
    min_sites: int = ranged(2, 1, 10000)
    round_timeout: float = ranged(3600.0, 1.0, 1e6)  # seconds
    wait_for_sites: float = ranged(300.0, 1.0, 1e6)  # seconds
    round_retries: int = ranged(2, 0, 100)
    pause_after: int = ranged(3, 0, 100000)  # rounds in a row that a site fails before it is left alone for some; 0: never
    pause_rounds: int = ranged(5, 1, 100000)  # that it is left alone; then it is asked once more
    unlabelled_weight: float = ranged(1.0, 0.0, 1.0)  # weight of an unlabelled patient in the average, next to a labelled one
    max_update_norm: float = ranged(0.0, 0.0, 1e9)  # of a site's change, all arrays together; 0: off
    max_update_ratio: float = ranged(
        30.0, 0.0, 1e9
    )  # of that norm to the median of the other sites'; 0: off; plain rounds of 3 or more


@dataclass(frozen=True)
class SecureConfig:
    """Secure aggregation (`common.secure`): the server sees the sum of the updates, and no site's weight."""

    enabled: bool = False
    threshold: float = ranged(0.6, 0.5, 1.0)  # part of the asked sites that must stay to the end; always more than half
    update_range: float = ranged(1.0, 1e-6, 1e6)  # the largest change of one value in a round; beyond it a site refuses
    max_weight: float = ranged(1000.0, 1.0, 1e7)  # the largest weight of a site (patients); above it a site refuses


@dataclass(frozen=True)
class SiteLevelConfig:
    """Noise that the server adds to hide whole hospitals (`common.privacy.site_level`). With few of them it drowns the model."""

    enabled: bool = False
    clip: float = ranged(1.0, 1e-6, 1e6)  # the largest norm of a site's change in a round
    noise: float = ranged(1.0, 0.0, 1000.0)  # noise multiplier: of clip, on the sum; 0: none, and no protection
    site_delta: float = ranged(1e-3, 1e-12, 0.5)  # of the report's epsilon for a hospital


@dataclass(frozen=True)
class EvaluationConfig:
    """Measures on the external hospital (`common.evaluation`)."""

    bootstrap: int = ranged(1000, 0, 100000)  # resamples; 0: no intervals
    every: int = ranged(1, 0, 10000)  # external curve each n rounds, for looking only; 0: only at the end
    baselines: bool = True
    audit: bool = True  # of privacy at each site, after a private run (simulation; a hospital audits by itself)
    modality_subsets: bool = False
    batch_size: int = ranged(8, 1, 1024)  # patients
    holdout: float = ranged(0.0, 0.0, 0.5)  # share of each site's patients that never train: they calibrate the model; 0: none
    offsets: bool = True  # class offsets beside the temperature, where somebody is held back (`common.evaluation.calibration`)
    # Which global arrays are kept: the last round's, an average, or the best by held-back patients (`common.evaluation.stages`)
    stage: str = choice("last", "last", "best", "average", "interpolate", "auto")
    coverage: float = ranged(0.9, 0.5, 0.999)  # of conformal prediction sets: how often the truth is to be in them
    ood_rate: float = ranged(0.05, 0.001, 0.5)  # share of in-distribution patients that may be flagged as out of distribution


@dataclass(frozen=True)
class RunConfig:
    """One run, whole. Built by `load_config`, checked on construction, travels as JSON."""

    data: DataConfig = field(default_factory=DataConfig)
    task: Task = one_of("classification", TASKS)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    secure: SecureConfig = field(default_factory=SecureConfig)
    site_level: SiteLevelConfig = field(default_factory=SiteLevelConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = ranged(0, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        check_ranges(self)
        unknown = [m for m in self.data.modalities if m not in MODALITIES]
        if unknown or not self.data.modalities or len(set(self.data.modalities)) != len(self.data.modalities):
            raise ConfigError(
                f"data.modalities: expected some of {', '.join(MODALITIES)}, each once; got {list(self.data.modalities)}."
            )
        self._require_trained_head()
        self._require_from_sum()
        if self.privacy.enabled:
            self._require_bounded()
        if self.site_level.enabled and self.evaluation.holdout:
            raise ConfigError(
                f"evaluation.holdout = {self.evaluation.holdout!r} cannot run with site_level.enabled: the noise hides whole "
                "hospitals, and their sums over held-out patients would be published without any. Set evaluation.holdout = 0.0."
            )

    def _require_trained_head(self) -> None:
        """Refuse head rounds in which no loss would train the head."""
        rounds, name = self.training.head_rounds, self.task.term
        weights = {term.name: term.weight for term in self.objective.terms}
        if rounds and not weights[name]:
            raise ConfigError(
                f"training.head_rounds = {rounds} needs objective.terms.{name}.weight above 0: that term fits the head. "
                "Set training.head_rounds = 0, or give the term a weight."
            )

    def _require_from_sum(self) -> None:
        """Refuse an aggregator that needs what the server does not see."""
        strategy = self.federation.strategy
        hidden = {"secure.enabled": self.secure.enabled, "site_level.enabled": self.site_level.enabled}
        for name in (name for name, on in hidden.items() if on and not strategy.from_sum):
            raise ConfigError(
                f'federation.strategy = "{strategy.name}" cannot run with {name}: it needs the change of each site by itself, '
                'and only their sum is used there. Choose another, such as federation.strategy = "fedavg".'
            )

    def _require_bounded(self) -> None:
        """Refuse what would let one patient move a private step by more than the clipping norm."""
        crops, holdout = self.objective.local_crops, self.evaluation.holdout
        refused = [(f"objective.terms.{term.name}.{key}", *why) for term in self.objective.terms for key, *why in term.refusals()]
        if crops:
            refused.append(("objective.local_crops", crops, 0, "the private recipe has global views only"))
        if holdout:
            refused.append(("evaluation.holdout", holdout, 0.0, "sums over held-out patients would leave without noise"))
        for name, value, allowed, why in refused:
            raise ConfigError(f"{name} = {value!r} cannot run with privacy.enabled: {why}. Set {name} = {allowed!r}.")

    def to_json(self) -> str:
        """Canonical JSON text: equal configurations give equal text."""
        return json.dumps(plain(self), sort_keys=True)


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
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"Configuration {source}: not valid TOML ({error}).") from error
    table, known = of_today(table), list(dotted_names(RunConfig))
    for setting in settings:
        table = lay_over(table, setting, known)
    return config_from_table(table)


def config_from_json(text: str) -> RunConfig:
    """Rebuild a `RunConfig` from `RunConfig.to_json`, with the same checks as a TOML file."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The run configuration is not valid JSON ({error}).") from error
    return config_from_table(table)


def config_from_table(table: dict[str, Any]) -> RunConfig:
    """Build a `RunConfig` from nested plain values; see `load_config` for the errors."""
    config: RunConfig = build(RunConfig, of_today(table))
    return config
