"""Which of the files that could be a mask is the tumour's: by the words of its name, and where it lies."""

import re
from collections.abc import Sequence
from enum import IntEnum

from common.data.gate.candidates import Candidate, Notebook, without_copies
from common.data.gate.finding import Kind, Level
from common.data.gate.names import Name, as_glob

SUFFIXES = {"mask", "dseg", "seg", "roi", "segmentation", "label", "labels", "tumour", "tumor", "lesion"}
_TUMOUR = re.compile(r"tumou?r|lesion|laesion|gliom|gbm|metasta|neoplas|gtv")
_OTHER = re.compile(  # masks that people keep beside the tumour's, and that no slice may be chosen by
    r"brain|skull|(?<![a-z])(?:hd)?bet|strip|head|face|scalp|tissue|aseg|aparc|ribbon|cortex|cortical|cerebell|parc|atlas|hippo|"
    r"ventric|vessel|thalam|foreground|background|fov|valid|gr[ae]ymatter|whitematter"
)
_PARTS = re.compile(r"(?:c?gm|s?gm|wm|csf|pv|bg|bs|cb|l|r|lh|rh)")  # whole values of `label-`: tissues and sides
_DISEASES = re.compile(  # lesions that are no tumour's
    r"(?<![a-z])(?:ms|wm[hl]|fcd|cmb)(?![a-z])|scleros|stroke|infar[ck]t|ischa?em|haem|microbleed|leuk|abscess|epilep|dysplas"
)
_PIPELINES = re.compile(r"prep|freesurfer|fastsurfer|fs-|synthseg|cat12|mriqc|brain|skull|bet|strip|tissue|atlas|ants|spm|fsl")

TAKEN = Kind("mask-by-name", Level.NOTE, "a mask whose name does not say that it is the tumour's is taken for it")
NOT_TAKEN = Kind(
    "mask-not-taken", Level.WARNING, "a mask that could be the tumour's, the brain's, or another disease's, is not used"
)
KINDS = (TAKEN, NOT_TAKEN)


class Says(IntEnum):
    """What a name says of a mask; a higher one goes before."""

    OTHER = 0  # that it shows something else
    NOTHING = 1  # not what it shows
    SEGMENTATION = 2  # that it is a segmentation or region, not of what
    TUMOUR = 3  # that it is the tumour's


def reads_as(name: Name, dataset: str = "") -> Says | None:
    """What a file's name says; None: it is no mask.

    Args:
        name: of the file.
        dataset: name of the folder under `derivatives/` that holds it; "": it is raw.
    """
    if name.suffix not in SUFFIXES and not name.suffix.endswith(("mask", "segmentation")):
        return None
    words = [*name.words, name.suffix]
    if any(_DISEASES.search(word) for word in (*words, name.entities.get("0", "").lower())):
        return Says.NOTHING
    return _of_words(words, dataset.lower())


def _of_words(words: Sequence[str], dataset: str) -> Says:
    if any(_TUMOUR.search(word) for word in words):
        return Says.TUMOUR
    if any(_OTHER.search(word) or _PARTS.fullmatch(word) for word in words):
        return Says.OTHER
    if _TUMOUR.search(dataset):
        return Says.TUMOUR
    if _PIPELINES.search(dataset):
        return Says.OTHER
    told = words[-1] != "mask" or any("seg" in word for word in (*words, dataset))
    return Says.SEGMENTATION if told else Says.NOTHING


def masks_by_words(own: Sequence[Candidate], derived: Sequence[Candidate], book: Notebook) -> list[Candidate]:
    """The tumour's masks, raw ones where there are any, else those of `derivatives/`; what may be one and is not used is said.

    Among equals those count whose names say the most.
    """
    for place in (own, derived):
        told = [(says, one) for one in place if one.name.end and (says := reads_as(one.name, one.dataset)) is not None]
        best = max((says for says, _ in told), default=Says.OTHER)
        found = [one for says, one in told if says is best]
        if best is Says.NOTHING:
            _say_not_taken(found[0], book)
        elif best is not Says.OTHER:
            if best is Says.SEGMENTATION:
                _say_taken(found[0], book)
            return list(without_copies(found))
    return []


def _say_taken(one: Candidate, book: Notebook) -> None:
    book.add(
        TAKEN,
        one.path,
        found="taken for the tumour's mask, though its name does not say of what it is",
        expected="a name with tumour or lesion, such as desc-tumour_mask",
        do='If it shows something else: mask = "" under [files] of site.toml, or another glob.',
    )


def _say_not_taken(one: Candidate, book: Notebook) -> None:
    book.add(
        NOT_TAKEN,
        one.path,
        found="not taken for the tumour's mask: its name does not say that it is; it could be the brain's, or another disease's",
        expected="a name with tumour or lesion, such as desc-tumour_mask",
        do=f'If it is the tumour\'s: mask = "{_home(one)}{as_glob(one.name)}" under [files] of site.toml.',
    )


def _home(one: Candidate) -> str:
    return f"derivatives/{one.dataset}/**/" if one.dataset else "**/"
