"""Which of a patient's sessions is used: files of two are never mixed, for the head lay elsewhere, and the tumour may be gone.

The rule: a session whose name says that it was after treatment (post, follow-up, recurrence) only where there is no other; of the
rest the one with the most of the run's modalities; of equal ones one with a tumour mask; then the earliest, by `acq_time` of the
patient's sessions.tsv where it stands for all, else by name: those that say before treatment first, numbers by their size.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from common.config.modalities import MASK
from common.data.gate.candidates import Candidate, Candidates, Notebook
from common.data.gate.finding import Kind, Level

AFTER = re.compile(r"post|follow|(?<![a-z])fu(?![a-z])|recur|relaps|progress")
BEFORE = re.compile(r"pre|base|(?<![a-z])bl(?![a-z])|init|diag|screen|first")
LIKE = re.compile(
    r"(?:ses|session|visit|tp|timepoint|time|scan|day|week|month|year)[-_]?\w+|(?:19|20)\d\d-?\d\d-?\d\d.*", re.IGNORECASE
)
NO_SESSION = Kind("session-none", Level.ERROR, "no session of the patient is the one that site.toml names")
CHOSEN = Kind(
    "session-chosen", Level.NOTE, "one of several sessions is used; a warning where it lacks a modality that another has"
)
OTHER_MASK = Kind("mask-other-session", Level.WARNING, "a tumour mask of another session than the images is not used")
KINDS = (NO_SESSION, CHOSEN, OTHER_MASK)
RULE = "from before treatment, with the most of the run's modalities, with a tumour mask, the earliest"


@dataclass(frozen=True)
class Session:
    """What a session holds.

    Attributes:
        label: such as `ses-01`; "": files that lie in no session's folder.
        modalities: of the run.
        mask: whether it has one of the tumour.
        time: `acq_time` of sessions.tsv, or "".
    """

    label: str
    modalities: frozenset[str]
    mask: bool = False
    time: str = ""

    def __str__(self) -> str:
        return f"{self.label or 'no session'} ({', '.join(sorted(self.modalities))})"


def session_above(one: Candidate) -> str:
    """The session of an image that lies as BIDS wants it: what stands above `anat` or `dwi`, else what its name says."""
    return "/".join(one.folders[:-1]) or _entity(one)


def session_named(one: Candidate) -> str:
    """The session of a file that lies anywhere: a folder called like a session or a date, else what its name says."""
    return "/".join(folder for folder in one.folders if LIKE.fullmatch(folder)) or _entity(one)


def _entity(one: Candidate) -> str:
    session = one.name.entities.get("ses")
    return f"ses-{session}" if session else ""


def settle_masks(masks: Sequence[Candidate], labels: Sequence[str]) -> list[Candidate]:
    """Masks with the session that each is of: one of the images' sessions that its folders or its name tell, if any."""
    found = []
    for one in masks:
        above = ["/".join(one.folders[:end]) for end in range(len(one.folders), 0, -1)]
        label = next((text for text in (*above, _entity(one)) if text and text in labels), session_named(one))
        found.append(one if label == one.session else Candidate(one.path, one.file, label, one.exact))
    return found


def session_of_folder(label: str) -> str:
    """The last folder of a session's label, where that is `ses-...`; else ""."""
    last = label.rpartition("/")[2]
    return last if last.startswith("ses-") else ""


def choose_session(found: Candidates, run: Sequence[str], wanted: str, times: Mapping[str, str], book: Notebook) -> str | None:
    """The label of the session that is used; None where the patient has sessions, and none that is wanted.

    Args:
        found: all images and masks with their sessions.
        run: its modalities.
        wanted: glob of labels in site.toml, with or without `ses-`; "": the rule decides.
        times: `acq_time` by bare label.
        book: for what is said about the choice.
    """
    labels = _labels(found)
    every = [_session(label, found, run, times) for label in labels]
    best = choose([one for one in every if one.modalities] or every, wanted)
    shown = ", ".join(str(one) for one in every)
    if best is None and every:
        book.add(
            NO_SESSION,
            found=f"no session is called {wanted}; there is {shown}",
            expected="the one that session in site.toml names",
            do="Correct session in site.toml, or leave the patient out by exclude.",
        )
        return None
    if best is None:
        return ""
    if len(every) > 1:
        others = [one for one in every if one is not best]
        lost = sorted({kind for one in others for kind in one.modalities} - best.modalities)
        book.add(
            CHOSEN,
            found=f"of the sessions {shown}, {best.label or 'the files in none'} is used"
            + (f", which lacks {', '.join(lost)}" if lost else ""),
            expected=f"one session: {'the one that site.toml names' if wanted else RULE}",
            do=f'Another is used if site.toml says so: session = "{others[0].label or "*"}".',
            level=Level.WARNING if lost else Level.NOTE,
        )
    return best.label


def _labels(found: Candidates) -> list[str]:
    """Of the images' sessions."""
    return sorted({one.session for kind, files in found.items() if kind != MASK for one in files})


def of_session(found: Candidates, label: str, book: Notebook) -> Candidates:
    """What is of the session; where it is the only one, a mask that lies in no session's folder is of it too."""
    chosen = {kind: [one for one in files if one.session == label] for kind, files in found.items()}
    masks = found.get(MASK, [])
    if chosen.get(MASK) or not masks:
        return chosen
    loose = [one for one in masks if not one.session]
    if loose and len(_labels(found)) < 2:
        return chosen | {MASK: loose}
    book.add(
        OTHER_MASK,
        masks[0].path,
        found=f"a tumour mask that is not known to be of the session that is used ({label or 'without a name'}); not used",
        expected="a mask of the same session",
        do="Put it into the session's folder, or the session into its name, or choose the session in site.toml.",
    )
    return chosen


def _session(label: str, found: Candidates, run: Sequence[str], times: Mapping[str, str]) -> Session:
    kinds = {kind for kind, files in found.items() if any(one.session == label for one in files)}
    return Session(label, frozenset(kinds & {*run}), MASK in kinds, times.get(bare(label), ""))


def choose(sessions: Sequence[Session], wanted: str = "") -> Session | None:
    """The one that is used; None where none is called as `wanted`, a glob of labels with or without `ses-`, or there is none."""
    named = [one for one in sessions if not wanted or is_called(one.label, wanted)]
    timed = all(one.time for one in named)
    return min(named, key=lambda one: _rank(one, timed=timed), default=None)


def is_called(label: str, wanted: str) -> bool:
    """Whether a label, with or without `ses-`, fits a glob."""
    return any(fnmatchcase(text, wanted) for text in (label, label.removeprefix("ses-")))


def bare(label: str) -> str:
    """A label as all its spellings have it: without `ses-` and zeros before a number, in lower case."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", label.strip().lower().removeprefix("ses-"))


def _rank(one: Session, *, timed: bool) -> tuple[object, ...]:
    """The smallest is used."""
    text = one.label.lower()
    order = (one.time,) if timed else (0 if BEFORE.search(text) else 1, _natural(text))
    return bool(AFTER.search(text)), -len(one.modalities), not one.mask, *order, one.label


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts `ses-2` before `ses-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]
