"""What a run on whole volumes must be: a 3D encoder sees each modality of a patient as one cube, in all its blocks.

Each setting that is of slices is refused by its name, with what can be in its place.
"""

from collections.abc import Iterator

from common.config.axes import VOLUME, fields_of_view, on_volumes
from common.config.classes import Refused
from common.config.sections import Sections
from common.errors import ConfigError

AXES = f'["{VOLUME}"]'
POOLINGS = ("mean", "attention")  # those to which it is all one how patches lie


def require_usable_volumes(config: Sections) -> None:
    """Refuse what a 3D encoder lacks.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    if not on_volumes(config.data):
        return
    for one in _refused(config):
        raise ConfigError(f"{one.name} = {one.value!r} cannot run with data.axes = {AXES}: {one.why}. Set {one.allowed}.")


def require_slices(config: Sections, what: str) -> None:
    """Refuse a run on whole volumes where something knows slices only.

    Args:
        config: of the run.
        what: refuses, as the sentence's beginning.

    Raises:
        ConfigError: it is on volumes.
    """
    if on_volumes(config.data):
        raise ConfigError(f"{what} knows models of slices, and data.axes is {AXES}: a 3D encoder on whole volumes.")


def _refused(config: Sections) -> Iterator[Refused]:
    yield from _data(config)
    yield from _views(config)
    model = config.model
    if model.joint_blocks:
        why = "a 3D encoder sees each modality by itself in every block"
        yield Refused("model.joint_blocks", model.joint_blocks, why, "model.joint_blocks = 0")
    if model.pooling.name not in POOLINGS:
        why = "it knows how the patches of a slice lie, or the tumour's mask there"
        yield Refused("model.pooling", model.pooling.name, why, 'model.pooling = "mean" or "attention"')


def _data(config: Sections) -> Iterator[Refused]:
    data = config.data
    if len(data.axes) > 1:
        yield Refused("data.axes", list(data.axes), "a volume holds the slices of every axis", f"data.axes = {AXES}")
    if len(fields_of_view(data)) > 1:
        fields = list(fields_of_view(data))
        yield Refused("data.field_of_view", fields, "it is the edge of one cube", "data.field_of_view = 192.0")
    if data.slices != data.size:
        why = f"a volume is a cube, with as many layers as pixels, and data.size is {data.size}"
        yield Refused("data.slices", data.slices, why, f"data.slices = {data.size}")
    if data.through != "brain":
        yield Refused("data.through", data.through, "the cube lies around the whole brain", 'data.through = "brain"')
    if data.intensity != "zscore":
        why = "3D encoders were trained on z-scores of the brain"
        yield Refused("data.intensity", data.intensity, why, 'data.intensity = "zscore"')


def _views(config: Sections) -> Iterator[Refused]:
    layers, weights = config.data.slices, {term.name: term.weight for term in config.objective.terms}
    if config.training.slices_per_step != layers:
        why = "a volume is seen whole in every step"
        name = "training.slices_per_step"
        yield Refused(name, config.training.slices_per_step, why, f"{name} = {layers}")
    if config.objective.local_crops:
        why = "a local crop is of a slice's patches, and the encoder has positions for one whole cube"
        yield Refused("objective.local_crops", config.objective.local_crops, why, "objective.local_crops = 0")
    if weights["ibot"]:
        why = "iBOT hides patches of a slice, and here patches are hidden behind the encoder alone"
        yield Refused("objective.terms.ibot.weight", weights["ibot"], why, "objective.terms.ibot.weight = 0.0")
