"""A proposed mask: what a segmentation model says is tumour in one patient. Nobody drew it, and whoever uses it says so.

X, Y, Z voxels, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.cases import Case
from common.data.gate.patient import guided_by, read_patient
from common.data.slices import Sliced, cut_patient
from common.data.volumes import Mask, Volume, resample
from common.data.whole import cut_whole
from common.errors import ConfigError

if TYPE_CHECKING:
    from common.model_files.opened_model import OpenedModel

NOTE = (
    "A proposal by a model, not drawn by anybody: look at it before anything is built on it. For research. Not a medical device."
)
NOTHING = (
    "The model proposes no tumour here, and the file holds none. That does not say that there is none: look at the images. For "
    "research. Not a medical device."
)
LEAST_ML = 0.05  # a smaller proposal guides no slices


@dataclass(frozen=True, eq=False)
class Proposal:
    """One patient's.

    Attributes:
        case: the patient.
        mask: [X, Y, Z], on the grid of `reference`.
        reference: the modality whose space it is in, with the header of its file.
        modality: its name.
        used: modalities that the model used.
    """

    case: Case
    mask: Mask
    reference: Volume
    modality: str
    used: tuple[str, ...]

    @property
    def ml(self) -> float:
        """Its volume."""
        return float(self.mask.sum() * np.prod(self.reference.spacing) / 1000)

    @property
    def note(self) -> str:
        """What is told with it."""
        return NOTE if self.mask.any() else NOTHING


@dataclass(frozen=True, eq=False)
class Guided:
    """What a prediction owes to a proposed mask.

    Attributes:
        model: the file of the segmentation model.
        ml: volume of the proposal.
        without: class probabilities [C] of the same model through the brain, as if there were no proposal.
    """

    model: str
    ml: float
    without: NDArray[np.float64]

    def as_table(self, classes: Sequence[str], probabilities: NDArray[np.float64]) -> dict[str, Any]:
        """What `--json` prints: the answer without the proposed mask, and whether that changes the class."""
        return {
            "model": self.model,
            "ml": self.ml,
            "prediction_without": classes[int(self.without.argmax())],
            "probabilities_without": {name: float(p) for name, p in zip(classes, self.without, strict=True)},
            "changes_prediction": bool(self.without.argmax() != probabilities.argmax()),
        }


def require_decoder(config: RunConfig, option: str) -> None:
    """Refuse a model that does not segment.

    Raises:
        ConfigError: names the option.
    """
    if config.task.decoder is None:
        raise ConfigError(
            f'{option}: expected a model that segments (task.name = "segmentation"), got a {config.task.name} model.'
        )


def propose(opened: "OpenedModel", case: Case) -> Proposal:
    """Segment every slice of a patient.

    Args:
        opened: a model that segments.
        case: its mask is not looked at.

    Raises:
        StaysOutError: the patient cannot be used.
    """
    from common.evaluation.segmentation import proposed  # noqa: PLC0415  torch: seconds
    from common.training.segment import as_network, segment  # noqa: PLC0415

    data = replace(opened.config.data, shift=0.0)  # windows are moved for fair measures, and for nothing else
    read = read_patient(replace(case, mask=None), data)
    whole = cut_whole(case.id, read, data)
    mask = proposed(segment(as_network(opened), whole, data.size), opened.config)
    used = tuple(m for m, here in zip(data.modalities, whole.present, strict=True) if here)
    first = next(m for m in data.modalities if m in read.images.volumes)
    return Proposal(case, mask, read.reference, first, used)


def slices_through(proposal: Proposal, config: RunConfig) -> Sliced | None:
    """The patient's slices for another model, through the proposed tumour as through a drawn one; None where it is too small.

    Args:
        proposal: of the patient.
        config: of the model that the slices are for.

    Raises:
        StaysOutError: the patient cannot be used.
    """
    if proposal.ml < LEAST_ML:
        return None
    read = read_patient(replace(proposal.case, mask=None), config.data)
    proposed = Volume(proposal.mask.astype(np.float32), proposal.reference.affine)
    region: Mask = resample(proposed, read.reference, order=0).voxels > 0
    return cut_patient(guided_by(read, region, config.data), config.data) if region.any() else None
