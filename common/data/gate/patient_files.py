"""One patient's files: one of each modality and the tumour's mask, all of one session and one space.

Opens no volume. Training, `check` and `predict` all ask here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.config.modalities import DEFAULT_MODALITIES, MASK, MODALITIES, FilePatterns, looked_for
from common.data.gate.candidates import Candidate, Candidates, Notebook, derived_files, matching, own_files
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.links import why_absent
from common.data.gate.mask_names import masks_by_words
from common.data.gate.modality_files import T1S, by_modality, is_by_words
from common.data.gate.names import Contrast, Name, as_glob, contrast_of, has_unknown_words, suffix_of
from common.data.gate.sessions import bare, choose_session, of_session, session_of_folder, settle_masks
from common.data.gate.spaces import in_one_space
from common.data.gate.tables import SESSION, session_rows
from common.errors import DataError

BROKEN = Kind("link-broken", Level.ERROR, "a link to nothing where a folder should be")
UNREADABLE = Kind("folder-unreadable", Level.ERROR, "a patient's folder that cannot be listed")
ABSENT = Kind("file-absent", Level.ERROR, "a file whose content is not here: git-annex, DataLad, git-lfs, or a link to nothing")
NOTHING = Kind("modality-none", Level.ERROR, "no image of the patient was found")
TWINS = Kind("file-twins", Level.ERROR, "two files for one modality or the mask")
LEFT = Kind("file-left", Level.NOTE, "a second file is not used, for the first is named as BIDS wants it")
UNREAD = Kind("file-unread", Level.NOTE, "a file that nobody reads has a name like a modality that the patient lacks")
ASSUMED = Kind("contrast-assumed", Level.WARNING, "a T1 is read as without contrast agent, though its name has unknown words")
GIVEN = Kind("contrast-given", Level.WARNING, "a T2 or FLAIR after contrast agent is used")
NO_SESSIONS = Kind("sessions-unread", Level.WARNING, "a patient's sessions.tsv cannot be read")
STRANGER = Kind(
    "name-other-patient",
    Level.ERROR,
    "files of two patients in one folder; a warning where all files are named after another than the folder",
)
OTHER_SESSION = Kind(
    "name-other-session",
    Level.ERROR,
    "files named after two sessions in one; a warning where all are named after another than the folder",
)
KINDS = (*(BROKEN, UNREADABLE, ABSENT, NOTHING, TWINS, LEFT, UNREAD, ASSUMED, GIVEN, NO_SESSIONS, STRANGER, OTHER_SESSION),)
FOREIGN = (".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".dcm", ".ima")  # volumes that are not read
NO_IMAGES = ("mask", "seg", "dseg", "probseg", "roi", "label")  # the last word of a region's name
CONVERT = "Convert it to NIfTI (.nii.gz): FreeSurfer's with mri_convert, DICOM with fedmri-site import."
NAME = "Name the files as BIDS does, or say under [files] of site.toml how they are named."
SHOWN = 3  # files spelled out in one finding


@dataclass(frozen=True)
class PatientFiles:
    """What was found of one patient.

    Attributes:
        files: modality or `mask` -> file.
        session: label of the session that they are from; "": none.
        findings: about the patient.
        cells: of the session's row in the patient's sessions.tsv, by column.
    """

    files: dict[str, Path] = field(default_factory=dict)
    session: str = ""
    findings: tuple[Finding, ...] = ()
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[str]:
        """What keeps the patient out, as sentences that do not name the patient."""
        errors = [replace(one, patient="") for one in self.findings if one.level is Level.ERROR]
        return [str(one).removeprefix("Site: ") for one in errors]


def find_files(
    folder: Path,
    patterns: FilePatterns,
    modalities: Iterable[str] = DEFAULT_MODALITIES,
    *,
    root: Path | None = None,
    session: str = "",
) -> PatientFiles:
    """The file of each modality and the mask.

    Args:
        folder: of one patient.
        patterns: globs relative to it, by modality; one that starts with `derivatives/` is relative to `root`.
        modalities: of the run; the default four are looked for besides.
        root: the data folder; default the one that holds `folder`.
        session: glob of the session to use; "": by the rule of `common.data.gate.sessions`.
    """
    run, home = tuple(modalities), root or folder.parent
    book = Notebook(folder.name, str(folder.relative_to(home)) if folder.is_relative_to(home) else "")
    wanted = [name for name in looked_for(run) if name in patterns]
    try:
        own, derived = own_files(folder), derived_files(home, folder.name)
    except OSError as error:
        _say_unreadable(folder, error, book)
        return PatientFiles({}, "", tuple(book.findings))
    _say_broken(own, book)
    found = by_modality(own, derived, patterns, wanted, book)
    masks = masks_by_words(own, derived, book) if is_by_words(MASK, patterns) else matching([*own, *derived], patterns[MASK])
    found[MASK] = settle_masks(masks, [one.session for files in found.values() for one in files])
    rows = _session_rows(folder, book)
    times = {label: cells.get("acq_time", "") for label, cells in rows.items()}
    label = choose_session(found, run, session, times, book)
    if label is None:
        return PatientFiles({}, "", tuple(book.findings))
    files = _one_each(in_one_space(_magnitudes(of_session(found, label, book)), book), book)
    _say_strangers(files, label, book)
    _say_assumed(files, book)
    _say_missing(own, files, wanted, book)
    here = {kind: one.file for kind, one in files.items() if _is_here(one, book)}
    return PatientFiles(here, label, tuple(book.findings), rows.get(bare(label), {}))


def _say_unreadable(folder: Path, error: OSError, book: Notebook) -> None:
    lost = why_absent(folder) if folder.is_symlink() and not folder.exists() else None
    what, do = lost or (f"cannot be read ({error.strerror or error})", "Let this user read it.")
    book.add(BROKEN if lost else UNREADABLE, found=f"the patient's folder {what}", expected="a folder of files", do=do)


def _say_broken(own: Sequence[Candidate], book: Notebook) -> None:
    """A link to nothing without a file's ending may have been a session, with all that was in it."""
    for one in own:
        lost = why_absent(one.file) if "." not in one.file.name and not one.file.exists() else None
        if lost:
            book.add(BROKEN, one.path, found=lost[0], expected="a folder or a file", do=lost[1])


def _session_rows(folder: Path, book: Notebook) -> dict[str, Mapping[str, str]]:
    """Rows of the patient's sessions.tsv by label."""
    try:
        return {bare(cells.get(SESSION, "")): cells for cells in session_rows(folder)}
    except DataError as error:
        book.add(NO_SESSIONS, found=str(error).removesuffix("."), expected="a table of the sessions", do="Correct it.")
        return {}


def _magnitudes(found: Candidates) -> Candidates:
    """Without phase, real and imaginary parts, of which none is an image of tissue."""
    parts = {one.path: one.name.entities.get("part", "mag").lower() for files in found.values() for one in files}
    return {kind: [one for one in files if parts[one.path].startswith("mag")] for kind, files in found.items()}


def _one_each(found: Candidates, book: Notebook) -> dict[str, Candidate]:
    """The one file of each kind; a name as in BIDS goes before another, T2 and FLAIR without contrast agent before those with."""
    files = {}
    for kind, several in found.items():
        exact = [one for one in several if one.exact] or several
        plain = [one for one in exact if kind in (*T1S, MASK) or contrast_of(one.name) is not Contrast.GIVEN] or exact
        if len(plain) > 1:
            names = ", ".join(sorted(one.path for one in plain)[:SHOWN])
            book.add(
                TWINS,
                found=f"{len(plain)} files match {kind} ({names})",
                expected="one",
                do=f"Say which is meant: narrow files.{kind} in site.toml, or move the others away.",
            )
        elif len(plain) < len(several):
            left = next(one for one in several if one not in plain)
            text = f"not used, for {plain[0].path} is the {kind}"
            book.add(LEFT, left.path, found=text, expected="one file", do=f"If it is meant: files.{kind} in site.toml.")
        if plain:
            files[kind] = min(plain, key=lambda one: one.path)
    return files


def _say_strangers(files: Mapping[str, Candidate], label: str, book: Notebook) -> None:
    """Names that say another patient or session than the folder does; an error where they differ among themselves."""
    here = {STRANGER: ("sub", book.patient), OTHER_SESSION: ("ses", session_of_folder(label))}
    for kind, (key, folder) in here.items():
        words = {one.path: one.name.entities[key] for one in files.values() if key in one.name.entities}
        others = [path for path, word in words.items() if bare(word) != bare(folder.removeprefix("sub-"))]
        if others and folder.startswith(f"{key}-"):
            alike = len({bare(word) for word in words.values()}) == 1
            book.add(
                *(kind, others[0]),
                found=f"the name says {key}-{words[others[0]]}, its folder {folder}",
                expected="the same in both",
                do="Find out whose file it is, and rename it or its folder.",
                level=Level.WARNING if alike else Level.ERROR,
            )


def _say_assumed(files: Mapping[str, Candidate], book: Notebook) -> None:
    """What was read by silence."""
    plain = files.get("t1")
    if plain and "t1c" not in files and contrast_of(plain.name) is Contrast.SILENT and has_unknown_words(plain.name):
        book.add(
            *(ASSUMED, plain.path),
            found="read as T1 without contrast agent; that its name says so is not known",
            expected="ce-AGENT_T1w where agent was given",
            do=f'If it was given: t1c = "**/{as_glob(plain.name)}" under [files] of site.toml.',
        )
    for kind, one in files.items():
        if kind not in (*T1S, MASK) and not MODALITIES[kind].picture and contrast_of(one.name) is Contrast.GIVEN:
            text = f"a {MODALITIES[kind].title} after contrast agent is used, for there is no other"
            book.add(GIVEN, one.path, found=text, expected="one without", do="Put the one without beside it.")


def _say_missing(own: Sequence[Candidate], files: Mapping[str, Candidate], wanted: Sequence[str], book: Notebook) -> None:
    """No modality at all; or a volume that nobody reads, of which the name speaks of a modality that the patient lacks."""
    used = {one.file for one in files.values()}
    other = [one for one in own if one.file.name.lower().endswith(FOREIGN)]
    unread = [one for one in own if (one.name.end or one in other) and one.file not in used]
    if not any(kind in files for kind in wanted) and all(one.level is not Level.ERROR for one in book.findings):
        others = ", ".join(one.path for one in (unread or own)[:SHOWN])
        book.add(
            NOTHING,
            found="no modality" + (f"; among its files are {others}" if others else ""),
            expected=f"a file for at least one of {', '.join(wanted)} (see files in site.toml)",
            do=CONVERT if unread and unread == other else NAME,
        )
        return
    for kind in wanted:
        like = [one for one in unread if kind not in files and _speaks_of(kind, one)]
        if like and all(one.file != like[0].file for one in files.values()) and not _is_said(like[0], book):
            text = f"not read, and the patient has no {kind}"
            do = CONVERT if like[0] in other else f"If it is the {kind}: files.{kind} in site.toml."
            book.add(UNREAD, like[0].path, found=text, expected="a name and a folder as in BIDS", do=do)


def _speaks_of(kind: str, one: Candidate) -> bool:
    """Whether a part of a file's name is a modality's: `sub-1_FLAIR_final.nii.gz`, `t2_tse.nii.gz`, `sub-1_T1w.mgz`."""
    parts = re.split(r"[^A-Za-z0-9]+", one.name.stem)
    if parts[-1].lower() in NO_IMAGES:
        return False
    said = any(suffix_of(Name(part)) == ("t1" if kind in T1S else kind) for part in parts)
    return said and (kind not in T1S or (contrast_of(one.name) is Contrast.GIVEN) == (kind == "t1c"))


def _is_said(one: Candidate, book: Notebook) -> bool:
    """Whether something else was said of the file, or of its session."""
    return any(finding.file.endswith(one.path) or finding.code == "session-chosen" for finding in book.findings)


def _is_here(one: Candidate, book: Notebook) -> bool:
    """Whether the content of a file is here, and not its name alone."""
    try:
        absent = why_absent(one.file)
    except OSError as error:
        absent = f"cannot be read ({error.strerror})", "Let this user read it."
    if absent:
        book.add(ABSENT, one.path, found=absent[0], expected="the image itself", do=absent[1])
    return not absent
