"""What a run on pictures must be: they are no MRI, have one slice, no millimetres and no masks.

Each setting that has no meaning for them is refused by its name.
"""

from collections.abc import Iterator

from common.config.axes import AXIAL
from common.config.classes import Refused
from common.config.modalities import MODALITIES, on_pictures
from common.config.sections import Sections
from common.errors import ConfigError


def require_usable_pictures(config: Sections) -> None:
    """Refuse what pictures lack.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    chosen = config.data.modalities
    if not on_pictures(chosen):
        return
    if len(chosen) != 1:
        pictures = [name for name in chosen if MODALITIES[name].picture]
        raise ConfigError(
            f"data.modalities = {list(chosen)}: pictures are not read beside MRI. Set data.modalities = {pictures[:1]}."
        )
    for one in _settings(config):
        raise ConfigError(f"{one.name} = {one.value!r} cannot run on pictures: {one.why}. Set {one.allowed}.")


def require_volumes(config: Sections, what: str) -> None:
    """Refuse a run on pictures where something knows volumes only.

    Args:
        config: of the run.
        what: refuses, as the sentence's beginning.

    Raises:
        ConfigError: it is on pictures.
    """
    if on_pictures(config.data.modalities):
        raise ConfigError(f"{what} knows models of volumes (MRI), and data.modalities is {list(config.data.modalities)}.")


def _settings(config: Sections) -> Iterator[Refused]:
    data, model = config.data, config.model
    if tuple(data.axes) != AXIAL:
        yield Refused("data.axes", list(data.axes), "a picture lies along no axis of a body", 'data.axes = ["axial"]')
    if data.slices != 1:
        yield Refused("data.slices", data.slices, "a picture is one slice", "data.slices = 1")
    if data.harmonise or data.standard:
        yield Refused(
            "data.harmonise", data.harmonise, "landmarks are of brains", "data.harmonise = false and data.standard = []"
        )
    if config.task.decoder:
        yield Refused("task.name", config.task.name, "it learns from masks of volumes", 'task.name = "findings"')
    if model.pooling.fits:
        yield Refused("model.pooling", model.pooling.name, "it is fitted to tumour masks", 'model.pooling = "mean"')
    if model.public_features:
        yield Refused("model.public_features", model.public_features, "they are of simulated MRI", 'model.public_features = ""')
