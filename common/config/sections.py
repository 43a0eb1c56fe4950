"""The sections of a run's configuration, each setting with its range and default.

The defaults are the paper's recipe (MM-DINOv2, Scholz et al., MICCAI 2025) where it fits a federation, on DINOv2 ViT-S.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common.adapters.adapter import Adapter
from common.adapters.registry import ADAPTERS
from common.aggregation.aggregator import Aggregator
from common.aggregation.registry import AGGREGATORS
from common.config.axes import AXIAL
from common.config.covariates import COVARIATES, Covariate
from common.config.modalities import DEFAULT_MODALITIES
from common.config.standard import Standard
from common.low_rank.pair_rule import PairRule
from common.low_rank.paired import Paired
from common.low_rank.registry import PAIR_RULES
from common.objectives.term import Term
from common.objectives.terms import TERMS
from common.pooling.pooling import Pooling
from common.pooling.registry import POOLINGS
from common.schema import choice, many_of, one_of, ranged, rows
from common.tasks.registry import TASKS
from common.tasks.task import Task


@dataclass(frozen=True)
class DataConfig:
    """How a patient's volumes become slices (`common.data`)."""

    modalities: tuple[str, ...] = DEFAULT_MODALITIES  # of `common.config.modalities.MODALITIES`
    axes: tuple[str, ...] = AXIAL  # of `common.config.axes.AXES`
    slices: int = ranged(5, 1, 256)  # of each axis; of a volume its layers, as many as `size`
    through: str = choice(
        "tumour", "tumour", "brain"
    )  # where there is a mask; brain: its tumour decides of no slice and no window
    shift: float = ranged(0.0, 0.0, 100.0)  # mm at most that a patient's window is moved, each way, by a draw fixed by their id
    size: int = ranged(224, 16, 1024)  # pixels
    field_of_view: float | tuple[float, ...] = ranged(112.0, 8.0, 512.0)  # mm; several: each slice is cut at each of them
    intensity: str = choice("percentiles", "percentiles", "zscore")  # what of a volume becomes 0 to 1 (`common.data.volumes`)
    low_percentile: float = ranged(1.0, 0.0, 50.0)
    high_percentile: float = ranged(99.5, 50.0, 100.0)
    covariates: tuple[Covariate, ...] = rows(Covariate, COVARIATES)  # columns of participants.tsv that the model takes, too
    harmonise: bool = False  # before round 1 the sites' landmarks become `standard`, where that is empty (`server.run.standard`)
    standard: tuple[Standard, ...] = rows(Standard, {})  # of modalities; volumes are mapped to it (`common.data.harmonisation`)

    @property
    def unharmonised(self) -> "DataConfig":
        """The same for a look at the files before there is a standard."""
        return self if self.standard else replace(self, harmonise=False)

    def of_slices(self) -> dict[str, Any]:
        """The settings that decide what slices hold, by name: a patient's covariates change none of them."""
        without = {"covariates", "harmonise", *([] if self.standard else ["standard"])}
        plain = {"axes": self.axes == AXIAL, "through": self.through == "tumour", "shift": not self.shift}
        without |= {name for name, usual in plain.items() if usual}  # so slices cached before there was a choice stay good
        found = {name: value for name, value in asdict(self).items() if name not in without}
        if self.intensity == "percentiles":  # as for axes
            del found["intensity"]
        else:  # under the plain name lie slices whose air is grey
            found["intensity"] += ", air 0"
        return found


@dataclass(frozen=True)
class ModelConfig:
    """The frozen backbone and what is trained on it (`common.models`, `common.adapters`)."""

    backbone: str = "vit_small_patch14_dinov2.lvd142m"  # of docs/backbones.md
    weights: str = "hub"  # "hub", "random", a file that is shipped ("phantom", "phantom-tissue"), or the path of one
    adapter: Adapter = one_of("lora", ADAPTERS)
    blocks: int = ranged(0, 0, 64)  # adapt the last n blocks; 0: all
    joint_blocks: int = ranged(0, 0, 64)  # modalities meet in the last n blocks; 0: in all (the paper's)
    pooling: Pooling = one_of("mean", POOLINGS)  # how patch tokens become one vector a modality (`common.pooling`)
    train_norms: bool = True
    train_tokens: bool = True  # modality embeddings and mask token; without them nothing flows back below the adapted blocks
    centre_features: bool = False  # take the federation's mean features off before the head; the first round measures them
    public_features: str = ""  # "": none; a file of them, or the name of a shipped one (`common.models.public_features`)
    public_width: int = ranged(32, 2, 1024)  # how many of its directions the head sees
    head: str = choice("prototypes", "prototypes", "linear")  # DINO's, or softmax regression (`common.models.linear_head`)
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
    # Chance that a patient's covariates are hidden all together, and then that of each by itself: the model answers without, too.
    covariate_dropout: float = ranged(0.3, 0.0, 1.0)

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
    slices_per_step: int = ranged(1, 1, 256)  # random slices of each patient in a step; all of a volume
    learning_rate: float = ranged(1e-3, 0.0, 10.0)
    head_learning_rate: float = ranged(1e-3, 0.0, 10.0)
    weight_decay: float = ranged(0.04, 0.0, 10.0)
    ssl_rounds: int = ranged(0, 0, 100000)  # before all others: adapters by DINO, iBOT and KoLeo alone, on all patients
    head_rounds: int = ranged(0, 0, 100000)  # first rounds that fit the head alone, on features (probing, then tuning)
    head_optimizer: str = choice("adamw", "adamw", "sgd")  # of head rounds; sgd: momentum 0.9, no weight decay
    head_steps: int = ranged(50, 1, 100000)  # of the optimizer, in each of them
    head_views: int = ranged(0, 0, 1000)  # masked crops of each patient, new ones in each of them; 0: copies that lack modalities
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
    gradients: str = choice("auto", "auto", "batched", "loop")  # auto: batched, where all that is trained has a rule for it


@dataclass(frozen=True)
class FederationConfig:
    """Rounds, time limits, and the limits on what the server accepts (`server`)."""

    rounds: int = ranged(20, 1, 100000)
    strategy: Aggregator = one_of("fedavg", AGGREGATORS)  # how changes become the next arrays (`common.aggregation`)
    low_rank: PairRule = one_of("apart", PAIR_RULES)  # how pairs of low-rank factors do (`common.low_rank`)
    min_sites: int = ranged(2, 1, 10000)
    round_timeout: float = ranged(3600.0, 1.0, 1e6)  # seconds
    wait_for_sites: float = ranged(300.0, 1.0, 1e6)  # seconds
    round_retries: int = ranged(2, 0, 100)
    pause_after: int = ranged(3, 0, 100000)  # rounds in a row that a site fails before it is left alone for some; 0: never
    pause_rounds: int = ranged(5, 1, 100000)  # that it is left alone; then it is asked once more
    unlabelled_weight: float = ranged(1.0, 0.0, 1.0)  # weight of an unlabelled patient in the average, next to a labelled one
    unlabelled: bool = False  # train though no patient of any site has a label (`--unlabelled`)
    max_update_norm: float = ranged(0.0, 0.0, 1e9)  # of a site's change, all arrays together; 0: off
    max_update_ratio: float = ranged(
        30.0, 0.0, 1e9
    )  # of that norm to the median of the other sites'; 0: off; plain rounds of 3 or more
    # What a site's change travels in (`common.messages.wire`); in fewer bits, what rounding loses is added to the next one
    wire: str = choice("float32", "float32", "bf16", "int8")
    # Bounds on one site of three or more (`server.strategy.influence`). 0: a half, 2 and 1 among hospitals, none in simulation.
    max_site_share: float = ranged(0.0, 0.0, 1.0)  # of the round's weight, and of weight times length of the change; 1: off
    clip_ratio: float = ranged(0.0, 0.0, 1e9)  # to which multiple of the other sites' median norm a longer change is shortened
    distance_ratio: float = ranged(
        0.0, 0.0, 1e9
    )  # to which multiple of the others' median distance a change is drawn to the middle

    @property
    def aggregator(self) -> Aggregator:
        """What `strategy` and `low_rank` are together."""
        return Paired(self.strategy, self.low_rank) if self.low_rank.takes_pairs else self.strategy


@dataclass(frozen=True)
class SecureConfig:
    """Secure aggregation (`common.secure`): the server sees the sum of the updates, and no site's weight."""

    enabled: bool = False
    threshold: float = ranged(0.6, 0.5, 1.0)  # part of the asked sites that must stay to the end; always more than half
    min_summed: int = ranged(
        3, 2, 1000
    )  # that must stay, where so many are asked; hospitals have a `policy.min_summed` of their own
    update_range: float = ranged(
        1.0, 1e-6, 1e6
    )  # the largest change of one value in a round; beyond it a site shortens its update
    max_weight: float = ranged(1000.0, 1.0, 1e7)  # the largest weight of a site (patients); above it a site counts as that


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
class PersonalConfig:
    """What of the model is each site's own: it neither leaves nor is overwritten (`common.training.personal`)."""

    keep: tuple[str, ...] = ()  # kinds of arrays (`common.config.personal`), from the first tuning round on; none: all are shared
    ditto_lambda: float = ranged(0.0, 0.0, 1e6)  # Ditto: pull of the global arrays on the site's own copy of all; 0: no copy

    @property
    def on(self) -> bool:
        """Whether sites have something of their own."""
        return bool(self.keep or self.ditto_lambda)


@dataclass(frozen=True)
class TwinsConfig:
    """The same person at two hospitals (`common.data.twins`): what becomes of such a patient. docs/privacy.md"""

    with_external: str = choice("refuse", "refuse", "drop", "keep")  # trains here, is measured there; drop: trains nowhere
    between_sites: str = choice("drop", "drop", "refuse", "keep")  # trains at two hospitals; drop: at the first alone
    exchange: bool = False  # at a real federation: hospitals compare keyed fingerprints before the first round
    left_out: tuple[str, ...] = ()  # SITE/PATIENT, who take no part; `fedmri-sim` writes here whom it drops


@dataclass(frozen=True)
class Sections:
    """All of them, each within its own ranges; `common.config.run.RunConfig` is the one whose sections also fit each other."""

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
    twins: TwinsConfig = field(default_factory=TwinsConfig)
    personal: PersonalConfig = field(default_factory=PersonalConfig)
    seed: int = ranged(0, 0, 2**31 - 1)

    @property
    def reads_masks(self) -> bool:
        """Whether sites read tumour masks beside their slices."""
        return self.model.pooling.fits or self.task.decoder is not None
