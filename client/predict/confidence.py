"""How far a prediction can be relied on, in sentences: the same on the terminal and on the card."""

import math

from client.predict.prediction import NO_CALIBRATION, Answer
from common.evaluation.calibration.calibration import LEAST_TO_VOUCH

FEW = 50  # patients behind a calibration, below which its numbers are rough


def calibration_words(one: Answer) -> str:
    """Whether the probabilities are calibrated, and on whom."""
    calibration = one.calibration
    if calibration is None or not one.calibrated:
        return f"Probabilities are {NO_CALIBRATION}."
    n, sites = calibration.patients, len(calibration.sites)
    who = "patients" if n is None else "1 patient" if n == 1 else f"{n} patients"
    rough = "" if n is None or n >= FEW else " So few make probabilities and sets rough guesses."
    offsets = ", class offsets included," if calibration.offsets else ""
    return f"Probabilities are calibrated{offsets} on {who} held back at {sites} {'site' if sites == 1 else 'sites'}.{rough}"


def set_words(one: Answer) -> str:
    """What the prediction set guarantees; "" where there is none."""
    calibration = one.calibration
    if calibration is None or one.in_set is None:
        return ""
    if calibration.set_threshold >= 1:
        return "Every set holds all classes, as too few patients were held back to rule any out: it says nothing of this patient."
    kept = f"such sets hold the true class for {calibration.coverage:.0%} of patients like those of the federation"
    return f"No class can be ruled out: {kept}." if one.in_set.all() else f"{kept[0].upper()}{kept[1:]}."


def proposal_words(one: Answer) -> str:
    """How far the answer depends on a proposed mask; "" where none was used."""
    if one.guided is None:
        return ""
    classes, without = one.config.task.classes, one.guided.without
    other = int(without.argmax())
    now = int(one.probabilities.argmax())
    told = f"Without the proposed mask: {classes[other]}, {without[other]:.3f}"
    if other != now:
        return f"{told}. The prediction hangs on the proposal: look at it (--masks with {one.guided.model} as --model)."
    return f"{told}, {without[now] - one.probabilities[now]:+.3f} against the answer with it."


def likeness_words(one: Answer) -> str:
    """Whether the patient is out of distribution."""
    open_ = "Not known whether the patient is like the training patients:"
    if one.ood_score is None or one.calibration is None:
        return f"{open_} the model has nothing to compare these images with."
    if one.flagged is None and math.isfinite(one.calibration.ood_threshold):
        few, score = one.calibration.patients, f"{one.ood_score:.2f}"
        return (
            f"Cannot be told whether the patient is like the training patients: the threshold is of {few} held-back patients; "
            f"where they are fewer than {LEAST_TO_VOUCH} a score below it (it is {score}) says nothing."
        )
    if one.flagged is None:
        return f"{open_} the hospitals scored too few patients to say which score is too high (it is {one.ood_score:.2f})."
    limit = f"score {one.ood_score:.2f}, threshold {one.calibration.ood_threshold:.2f}"
    if one.flagged:
        return f"OUT OF DISTRIBUTION, unlike the training patients ({limit}): do not rely on this answer."
    return f"Not flagged as out of distribution ({limit}). The answer can still be wrong."


def covariate_words(one: Answer) -> str:
    """What the model was told of the patient besides images; "" for a model that takes nothing."""
    known = [f"{name} {value}" for name, value in one.covariates.items() if value is not None]
    unknown = [name for name, value in one.covariates.items() if value is None]
    missing = f"; not known: {', '.join(unknown)}" if unknown else ""
    return f"{', '.join(known) or 'none'}{missing}" if one.covariates else ""


def warning(one: Answer) -> str:
    """A warning to show beside the prediction; "" where none is needed."""
    if one.flagged:
        return likeness_words(one)
    whole = one.in_set is not None and bool(one.in_set.all())
    return "The prediction set holds every class: none is ruled out for this patient." if whole else ""
