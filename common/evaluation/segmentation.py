"""A network that segments, measured on patients by their drawn masks: all slices of each, at the volume's own voxels.

M modalities, X, Y, Z voxels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from common.config.run import RunConfig
from common.config.segmentation import LEFT_OUT
from common.data.cases import Case
from common.data.gate.patient import Patient, read_patient
from common.data.volumes import Array, Mask
from common.data.whole import Whole, cut_whole
from common.evaluation.subsets import name_of, subsets_of
from common.metrics.segmentation import agreement, dice_difference, summary
from common.tasks.segmentation import Segmentation
from common.training.segment import Network, segment

Cases = Sequence[tuple[str, Case]]  # under the ids that the report has


@dataclass(frozen=True)
class Measured:
    """What a network proposed for some patients, as report.json has it.

    Attributes:
        patients: one {`id`, `modalities`, `segmentation`} each; `segmentation` is an `Agreement`, None without a drawn mask.
        subsets: by modalities such as "t1+flair", the agreement of each patient (by id) who has any of them.
    """

    patients: list[dict[str, Any]]
    subsets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, dict[str, Any]]:
        """By id, the agreement of those who have a drawn mask."""
        return {one["id"]: one["segmentation"] for one in self.patients if one["segmentation"] is not None}


def measure_patients(
    network: Network, cases: Cases, config: RunConfig, *, subsets: bool = False, progress: Callable[[], None] = lambda: None
) -> Measured:
    """Segment each patient, and compare with what was drawn.

    Args:
        network: of windows (`common.training.segment`).
        cases: patients who can be used; their files are read whole, one after the other.
        config: of the run.
        subsets: whether each subset of the modalities is measured, too; each takes as long as the whole.
        progress: called after each patient.

    Raises:
        StaysOutError: a patient's files are no longer what they were.
    """
    patients, found = [], dict[str, dict[str, dict[str, Any]]]()
    for name, case in cases:
        read = read_patient(case, config.data)
        whole = cut_whole(case.id, read, config.data)
        told = _compared(network, whole, read, config, whole.present)
        used = [m for m, here in zip(config.data.modalities, whole.present, strict=True) if here]
        patients.append({"id": name, "modalities": used, "segmentation": told})
        if subsets and told is not None:
            for subset, part in _by_subset(network, whole, read, config, told).items():
                found.setdefault(subset, {})[name] = part
        progress()
    return Measured(patients, found)


def proposed(probabilities: Array, config: RunConfig) -> Mask:
    """The mask of probabilities [X, Y, Z]: where they are above the threshold; of that the largest parts, where the run asks so.

    Voxels are connected that share a face. Of parts of one size the first along X, Y, Z is kept.
    """
    assert isinstance(config.task, Segmentation)
    above: Mask = probabilities > config.task.threshold
    if not config.task.components:
        return above
    parts, _ = ndimage.label(above)
    sizes = np.bincount(parts.ravel())[1:]
    kept = np.argsort(-sizes, kind="stable")[: config.task.components] + 1
    return np.isin(parts, kept)


def external_entry(measured: Measured, config: RunConfig) -> dict[str, Any]:
    """`segmentation` of `external`, or of a baseline, in report.json: see `common.metrics.segmentation.summary`.

    Besides: `undrawn`, patients without a mask, who were segmented and not measured; `left_out`, what other runs have and such a
    run has not, and why.
    """
    undrawn = len(measured.patients) - len(measured.known)
    return {**summed(list(measured.known.values()), config), "undrawn": undrawn, "left_out": list(LEFT_OUT)}


def summed(found: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Means with intervals, by the run's own resamples: the same ones for all models that are compared on the same patients."""
    generator = np.random.default_rng(config.seed)
    return summary(found, bootstrap=config.evaluation.bootstrap, generator=generator)


def beside(first: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]], config: RunConfig, key: str) -> Any:
    """What another model, or a subset of the modalities, did on the patients that both have, and how far it is from the first.

    Args:
        first: agreement by id, of the federated model with all modalities.
        other: the other's.
        config: the bootstrap and the seed are read.
        key: of the paired difference in mean Dice, first minus other: `difference` or `drop`.
    """
    both = [name for name in first if name in other]
    pair = [[table[name] for name in both] for table in (first, other)]
    generator = np.random.default_rng(config.seed)
    difference = dice_difference(*pair, bootstrap=config.evaluation.bootstrap, generator=generator)
    return {"segmentation": summed(pair[1], config), key: difference}


def subset_entries(measured: Measured, config: RunConfig) -> dict[str, Any]:
    """`modality_subsets` of report.json."""
    return {name: beside(measured.known, found, config, "drop") for name, found in measured.subsets.items()}


def _by_subset(
    network: Network, whole: Whole, read: Patient, config: RunConfig, full: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What the patient has of a subset decides; what is the same is computed once."""
    done: dict[tuple[bool, ...], dict[str, Any]] = {tuple(whole.present.tolist()): full}
    found = {}
    for subset in subsets_of(len(whole.present)):
        use = whole.present & np.array(subset)
        if not use.any():
            continue
        members = tuple(use.tolist())
        if members not in done:
            told = _compared(network, whole, read, config, use)
            assert told is not None  # `full` is of the same drawn mask
            done[members] = told
        found[name_of(subset, config.data.modalities)] = done[members]
    return found


def _compared(network: Network, whole: Whole, read: Patient, config: RunConfig, use: Mask) -> dict[str, Any] | None:
    """The agreement with the drawn mask; None where there is none."""
    if not read.tumour:
        return None
    found = proposed(segment(network, whole, config.data.size, use=use), config)
    return agreement(found, read.region, read.reference.spacing).as_json()
