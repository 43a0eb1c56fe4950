"""Predictions for this site's patients: class probabilities, how reliable they are, and the evidence. Nothing leaves the site.

S slices, M modalities, C classes, h x w patches, Q clinical covariates.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.predict.covariate_evidence import covariate_evidence
from client.predict.proposal import Guided
from common.config.axes import AXES, AXIAL, VOLUME, in_words, slice_names, squares, usual
from common.config.covariates import Covariate
from common.config.run import RunConfig
from common.data.cases import UNLABELLED, Case
from common.data.covariates import as_array
from common.data.dataset import SiteData
from common.data.planes import Plane
from common.data.slices import Sliced
from common.errors import FederationError, WeightsError
from common.evaluation.calibration.calibration import CALIBRATION_NAME, Calibration, prediction_sets
from common.evaluation.explanation.attribution import modality_evidence, place_evidence
from common.evaluation.ood.features import features
from common.evaluation.ood.score import Reference, moments_like
from common.model_files.opened_model import OpenedModel
from common.models.arrays import check_arrays
from common.models.multimodal import Alone
from common.training.below import below
from common.training.predict import predict

RESEARCH = "For research. Not a medical device."
NO_CALIBRATION = "not calibrated: the model comes without a calibration"
LIMITS = (
    "By modality: how far the predicted class's probability falls without that modality. By place: how far that class's logit "
    "(the score from which its probability is computed) falls when one square of one slice is left out after the last layer. By "
    "then the squares have exchanged information, so each also reflects others. It shows what this model used: it is no "
    "segmentation, and no proof that the prediction has a good reason."
)
STRONGEST = 5  # patches that JSON names


@dataclass(frozen=True, eq=False)
class Answer:
    """The model's prediction for one patient.

    Attributes:
        probabilities: [C], calibrated where there is a calibration.
        in_set: [C], the prediction set; None without a calibration.
        ood_score: out-of-distribution score; None where there is nothing to compare the patient with.
        by_modality: [M], see `modality_evidence`; None: not asked for.
        by_place: [S, M, h, w], see `place_evidence`; None: not asked for.
        by_covariate: [Q], see `covariate_evidence`; None: not asked for.
        guided: what it owes to a proposed mask; None: none was used.
        unfinished: how far the model's run was, in a sentence; "": nothing says that it has not finished.
        unguided: why the model that was asked for a mask gave none that could be used; "": none was asked.
    """

    case: Case
    sliced: Sliced
    config: RunConfig
    calibration: Calibration | None
    probabilities: NDArray[np.float64]
    in_set: NDArray[np.bool_] | None
    ood_score: float | None
    by_modality: NDArray[np.float64] | None = None
    by_place: NDArray[np.float32] | None = None
    by_covariate: NDArray[np.float64] | None = None
    guided: Guided | None = None
    unguided: str = ""
    unfinished: str = ""

    @property
    def covariates(self) -> dict[str, str | None]:
        """What the model was told of the patient, by name; None: it takes that, and was not told."""
        rows = self.config.data.covariates
        values = self.case.covariates or (math.nan,) * len(rows)
        return {row.name: None if math.isnan(v) else row.show(v) for row, v in zip(rows, values, strict=True)}

    @property
    def prediction(self) -> str:
        """The most likely class."""
        return self.config.task.classes[int(self.probabilities.argmax())]

    @property
    def prediction_set(self) -> list[str] | None:
        """Classes that the set holds."""
        return (
            None
            if self.in_set is None
            else [c for c, inside in zip(self.config.task.classes, self.in_set, strict=True) if inside]
        )

    @property
    def calibrated(self) -> bool:
        """Whether any labelled patient is behind the probabilities' calibration."""
        return self.calibration is not None and bool(self.calibration.sites) and self.calibration.patients != 0

    @property
    def flagged(self) -> bool | None:
        """Whether the patient is out of distribution; None where that cannot be told."""
        if self.ood_score is None or self.calibration is None or not np.isfinite(self.calibration.ood_threshold):
            return None
        return True if self.ood_score > self.calibration.ood_threshold else False if self.calibration.vouches else None

    @property
    def used(self) -> list[str]:
        """Modalities that the model used."""
        return [m for m, here in zip(self.config.data.modalities, self.sliced.present, strict=True) if here]

    @property
    def ignored(self) -> list[str]:
        """Modalities that the patient has and the model does not know."""
        return [m for m in self.case.files if m not in self.config.data.modalities]

    @property
    def missing(self) -> list[str]:
        """Modalities that the model knows and the patient lacks, or that show nothing in the slices."""
        return [m for m in self.config.data.modalities if m not in self.used]

    @property
    def why_slices(self) -> str:
        """Which slices the model used, and why."""
        which = "; ".join(_plane_words(plane) for plane in self.sliced.planes)
        if not usual(self.config.data):
            which += f"; each of {in_words(self.config.data)}"
        if self.guided:
            return f"{which}, through a tumour of {self.guided.ml:.1f} ml that {self.guided.model} proposed: nobody drew it"
        if self.sliced.tumour:
            return f"{which}, through the tumour, by its mask"
        mask = "the mask is empty" if self.case.mask else "there is no mask"
        return f"{which}, through the brain: {mask}, and {self.unguided or 'none was proposed (--mask-model)'}"

    @property
    def slice_names(self) -> tuple[str, ...]:
        """What each image shows, [S]."""
        return slice_names(self.config.data, self.sliced.indices.tolist())


def _plane_words(plane: Plane) -> str:
    """The slices of one axis, counted from 1."""
    if plane.axis == VOLUME:
        return f"the volume, layers at slices {plane.indices.min() + 1} to {plane.indices.max() + 1} of {plane.depth}"
    which = ", ".join(str(i + 1) for i in dict.fromkeys(plane.indices.tolist()))
    axis = "" if plane.axis == AXIAL[0] else f"{plane.axis} "
    return f"{axis}{which} of {plane.depth} (from {AXES[plane.axis].first})"


def as_batch(read: Sequence[tuple[Case, Sliced]], covariates: Sequence[Covariate] = ()) -> SiteData:
    """Patients in the shape that models take; `covariates` are the model's."""
    return SiteData(
        "asked",
        tuple(case.id for case, _ in read),
        np.stack([sliced.images for _, sliced in read]),
        np.stack([sliced.present for _, sliced in read]),
        np.full(len(read), UNLABELLED, np.int64),
        "",
        as_array([case.covariates for case, _ in read], covariates),
    )


def answer(opened: OpenedModel, read: Sequence[tuple[Case, Sliced]], *, places: bool = False) -> list[Answer]:
    """The model's answers.

    Args:
        opened: the model, with its calibration where it has one.
        read: patients and their slices.
        places: with the evidence by place, which costs little: it is read off the same pass.
    """
    config, calibration = opened.config, opened.calibration
    batch = as_batch(read, config.data.covariates)
    by_place: Sequence[NDArray[np.float32] | None] = [None] * len(read)
    alone = below(opened, batch)
    if places:
        raw, found = place_evidence(opened, batch, scaling=opened.scaling, alone=alone)
        by_place = list(found)
    else:
        raw = predict(opened, batch, alone=alone)
    calibrated = opened.scaling.apply(raw) if config.task.exclusive else raw  # it makes rows add up to one
    sets = prediction_sets(calibrated, calibration.set_threshold) if calibration else [None] * len(read)
    ood_score = _ood_scores(opened, batch, alone)
    return [
        Answer(
            case, sliced, config, calibration, calibrated[i], sets[i], ood_score[i], by_place=place, unfinished=opened.unfinished
        )
        for i, ((case, sliced), place) in enumerate(zip(read, by_place, strict=True))
    ]


def weigh_modalities(opened: OpenedModel, answers: Sequence[Answer]) -> list[Answer]:
    """The answers with the evidence by modality, for each of which the model runs again, and by covariate."""
    batch = as_batch([(one.case, one.sliced) for one in answers], opened.config.data.covariates)
    probabilities = np.stack([one.probabilities for one in answers])
    evidence = modality_evidence(opened, batch, probabilities, scaling=opened.scaling)
    known = covariate_evidence(opened, batch, probabilities, scaling=opened.scaling)
    return [replace(one, by_modality=m, by_covariate=q) for one, m, q in zip(answers, evidence, known, strict=True)]


def _ood_scores(opened: OpenedModel, batch: SiteData, alone: Alone | None) -> list[float | None]:
    """Out-of-distribution scores; None where nothing is known to compare with.

    Raises:
        WeightsError: the reference is not of this model, or of another version.
    """
    if not opened.reference:
        return [None] * len(batch)
    try:
        check_arrays(opened.reference, moments_like(opened.config))
    except FederationError as error:
        raise WeightsError(
            f"The sums that patients are compared with belong to another model or another version of FedMRI ({error}). Take the "
            f"model and its {CALIBRATION_NAME} from one run of this version (without that file a run's model answers "
            "uncalibrated), or a release that was exported of such a run."
        ) from error
    scores = Reference.fit(opened.reference).score(features(opened, batch, alone=alone))
    return [float(score) if np.isfinite(score) else None for score in scores]


def answer_table(one: Answer) -> dict[str, Any]:
    """What `--json` prints of a patient: plain values."""
    calibration, classes = one.calibration, one.config.task.classes
    return {
        "patient": one.case.id,
        "prediction": one.prediction,
        "probabilities": {name: float(p) for name, p in zip(classes, one.probabilities, strict=True)},
        "calibrated": one.calibrated,
        "prediction_set": one.prediction_set,
        "coverage": calibration.coverage if calibration else None,
        "ood": _ood_table(one),
        "modalities": {"used": one.used, "ignored": one.ignored, "missing": one.missing},
        "covariates": one.covariates,
        "slices": {
            "numbers": [int(i) + 1 for i in one.sliced.indices],
            "of": one.sliced.planes[0].depth,
            "axes": [axis for axis, _, _ in squares(one.config.data)],
            "fields_of_view": [field for _, field, _ in squares(one.config.data)],
            "of_axis": {plane.axis: plane.depth for plane in one.sliced.planes},
            "through": "proposed tumour" if one.guided else "tumour" if one.sliced.tumour else "brain",
            "why": one.why_slices,
        },
        "proposed_mask": one.guided and one.guided.as_table(classes, one.probabilities),
        "findings": [asdict(finding) for finding in one.sliced.findings],
        "evidence": _evidence_table(one),
        "unfinished": one.unfinished or None,
        "note": RESEARCH,
    }


def _ood_table(one: Answer) -> dict[str, Any] | None:
    """Score, threshold and flag; the last two None where no threshold is known."""
    if one.ood_score is None:
        return None
    threshold = one.calibration.ood_threshold if one.calibration and one.flagged is not None else None
    return {"score": one.ood_score, "threshold": threshold, "flagged": one.flagged}


def _evidence_table(one: Answer) -> dict[str, Any] | None:
    """By modality, and by place: sums by modality and slice, and the patches with the strongest evidence, all counted from 1.

    Axial rows are counted from the front, columns from the patient's right, slices from below; for other planes see
    `common.config.axes`.
    """
    if one.by_modality is None and one.by_place is None:
        return None
    names = one.config.data.modalities
    table: dict[str, Any] = {"limits": LIMITS}
    if one.by_modality is not None:
        table["modalities"] = {m: float(v) for m, v in zip(names, one.by_modality, strict=True) if np.isfinite(v)}
    if one.by_covariate is not None and one.by_covariate.size:
        pairs = zip(one.config.data.covariates, one.by_covariate, strict=True)
        table["covariates"] = {row.name: float(v) for row, v in pairs if np.isfinite(v)}
    if one.by_place is not None:
        sums, stack = one.by_place.sum(axis=(2, 3)), squares(one.config.data)
        order = np.argsort(-one.by_place, axis=None, kind="stable")[:STRONGEST]
        places = [np.unravel_index(index, one.by_place.shape) for index in order]
        table["place"] = {
            "patches": list(one.by_place.shape[2:]),
            "logit_by_slice": {m: [float(v) for v in sums[:, i]] for i, m in enumerate(names) if one.sliced.present[i]},
            "strongest": [
                {
                    "slice": int(one.sliced.indices[s]) + 1,
                    **({} if usual(one.config.data) else {"axis": stack[s].axis, "field_of_view": stack[s].field_of_view}),
                    "modality": names[m],
                    "row": int(row) + 1,
                    "column": int(column) + 1,
                    "logit": float(one.by_place[p]),
                }
                for p in places
                for s, m, row, column in [tuple(int(i) for i in p)]
            ],
        }
    return table
