"""What a run that segments must be: what measures, calibrates or protects one class a patient has no meaning for it.

Each such setting is refused by its name; none is passed over in silence. The report says the same of what it leaves out.
"""

from collections.abc import Iterator
from typing import NamedTuple

from common.config.axes import usual
from common.config.sections import Sections
from common.errors import ConfigError

LEFT_OUT = (
    "class offsets and temperature (no class has a probability to calibrate)",
    "conformal prediction sets and abstention (they hold classes)",
    "the out-of-distribution threshold (it comes from held-back patients, and nobody is held back)",
    "evidence by modality and by place (it explains a class)",
    "private rounds (Dice is over the patients of a batch together, so that no patient's part is bounded)",
)


class Refused(NamedTuple):
    """A setting, as it is, why it cannot be, and what can."""

    name: str
    value: object
    why: str
    allowed: str


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
    for one in (*_data(config), *_objective(config, weights), *_model(config), *_evaluation(config)):
        raise ConfigError(f'{one.name} = {one.value!r} cannot run with task.name = "segmentation": {one.why}. Set {one.allowed}.')


def require_classes(config: Sections, what: str) -> None:
    """Refuse a run that segments where something knows classes only.

    Args:
        config: of the run.
        what: refuses, as the sentence's beginning.

    Raises:
        ConfigError: it segments.
    """
    if config.task.decoder:
        raise ConfigError(f'{what} knows runs that predict a class, and task.name is "{config.task.name}".')


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
    for name in ("classification", "fixmatch", "mean_teacher"):
        if weights[name]:
            key = f"objective.terms.{name}.weight"
            yield Refused(key, weights[name], "it learns of classes, and there is none", f"{key} = 0.0")
    prototypes = [name for name in ("dino", "ibot", "consistency") if weights[name]]
    if prototypes and config.model.prototypes < 2:
        why = f"objective.terms.{prototypes[0]}.weight is {weights[prototypes[0]]:g}, and no class stands in for its prototypes"
        yield Refused("model.prototypes", config.model.prototypes, why, f"model.prototypes = 64, or {prototypes[0]}.weight = 0.0")


def _model(config: Sections) -> Iterator[Refused]:
    """What pools, centres or probes one embedding a patient."""
    rounds = 'frozen features under a decoder are model.adapter = "head" with model.train_tokens = false'
    if config.training.head_rounds:
        yield Refused("training.head_rounds", config.training.head_rounds, rounds, "training.head_rounds = 0")
    if config.model.public_features:
        why = "they reduce one embedding a patient"
        yield Refused("model.public_features", config.model.public_features, why, 'model.public_features = ""')
    if config.personal.on:
        why = "held-back patients would tell what it is worth, by their classes"
        yield Refused("personal", "on", why, "personal.keep = [] and personal.ditto_lambda = 0.0")
    if config.privacy.enabled:
        yield Refused("privacy.enabled", True, LEFT_OUT[-1].partition("(")[2].rstrip(")"), "privacy.enabled = false")


def _evaluation(config: Sections) -> Iterator[Refused]:
    """What needs classes of held-back patients, or of the external ones after each round."""
    one = config.evaluation
    if one.holdout:
        why = "held-back patients calibrate classes, and here they would be lost to training"
        yield Refused("evaluation.holdout", one.holdout, why, "evaluation.holdout = 0.0")
    if one.stage not in ("last", "average"):
        why = "the stage is chosen by the classes of held-back patients"
        yield Refused("evaluation.stage", one.stage, why, 'evaluation.stage = "last"')
    if one.every:
        why = "the curve over rounds is of a class measure (MCC)"
        yield Refused("evaluation.every", one.every, why, "evaluation.every = 0")
