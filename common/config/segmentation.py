"""What a run that segments must be: what measures, calibrates or protects one class a patient has no meaning for it.

Each such setting is refused by its name; none is passed over in silence. The report says the same of what it leaves out.
"""

from collections.abc import Iterator
from itertools import chain

from common.config.axes import usual
from common.config.classes import Refused, learnt_of_classes, measured_by_classes, refuse, without_prototypes
from common.config.sections import Sections
from common.errors import ConfigError

LEFT_OUT = (
    "class offsets and temperature (no class has a probability to calibrate)",
    "conformal prediction sets and abstention (they hold classes)",
    "the out-of-distribution threshold (it comes from held-back patients, and nobody is held back)",
    "evidence by modality and by place (it explains a class)",
    "private rounds (Dice is over the patients of a batch together, so that no patient's part is bounded)",
)


def require_usable_segmentation(config: Sections) -> None:
    """Refuse what segmentation lacks, and segmentation's own settings in other runs.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    weights = {term.name: term.weight for term in config.objective.terms}
    if config.task.decoder is None:
        if weights["segmentation"]:
            raise ConfigError(
                f"objective.terms.segmentation.weight = {weights['segmentation']:g} trains a decoder, and task.name = "
                f'"{config.task.name}" has none. Set it to 0, or task.name = "segmentation".'
            )
        return
    refuse(config, chain(_data(config), _objective(config, weights), _model(config), measured_by_classes(config)))


def _data(config: Sections) -> Iterator[Refused]:
    """Slices and windows that the mask places would tell where the tumour is."""
    data = config.data
    if data.through != "brain":
        yield Refused("data.through", data.through, "slices through a mask's tumour tell where it is", 'data.through = "brain"')
    if not usual(data):
        why = "volumes are put together of axial slices at one field of view"
        yield Refused("data.axes", list(data.axes), why, 'data.axes = ["axial"] and one data.field_of_view')
    if data.covariates:
        yield Refused(
            "data.covariates", [row.name for row in data.covariates], "a decoder takes images alone", "data.covariates = []"
        )


def _objective(config: Sections, weights: dict[str, float]) -> Iterator[Refused]:
    """Terms that read classes."""
    if not weights["segmentation"]:
        name = "objective.terms.segmentation.weight"
        yield Refused(name, 0.0, "no other term trains the decoder", f"{name} = 1.0")
    yield from learnt_of_classes(config)
    yield from without_prototypes(config)


def _model(config: Sections) -> Iterator[Refused]:
    """What pools, centres or probes one embedding a patient."""
    rounds = 'frozen features under a decoder are model.adapter = "head" with model.train_tokens = false'
    if config.training.head_rounds:
        yield Refused("training.head_rounds", config.training.head_rounds, rounds, "training.head_rounds = 0")
    if config.model.public_features:
        why = "they reduce one embedding a patient"
        yield Refused("model.public_features", config.model.public_features, why, 'model.public_features = ""')
    if config.privacy.enabled:
        yield Refused("privacy.enabled", True, LEFT_OUT[-1].partition("(")[2].rstrip(")"), "privacy.enabled = false")
