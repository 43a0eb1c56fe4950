"""One patient's files: one of each modality and the tumour's mask, all of one session and one space.

Opens no volume. Training, `check` and `predict` all ask here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.config.modalities import DEFAULT_MODALITIES, MODALITIES, looked_for
from common.config.site import MASK, FilePatterns
from common.data.gate.candidates import Candidate, Candidates, Notebook, derived_files, matching, own_files
from common.data.gate.finding import Finding, Level
from common.data.gate.links import why_absent
from common.data.gate.mask_names import masks_by_words
from common.data.gate.modality_files import by_modality, is_by_words
from common.data.gate.names import Contrast, contrast_of, has_unknown_words
from common.data.gate.sessions import bare, choose_session, settle_masks
from common.data.gate.tables import SESSION, session_rows
from common.errors import DataError

OWN = "the patient's own"
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
        return [str(replace(one, patient="")).removeprefix("site: ") for one in self.findings if one.level is Level.ERROR]


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
    run = tuple(modalities)
    book, wanted = Notebook(folder.name), [name for name in looked_for(run) if name in patterns]
    try:
        own, derived = own_files(folder), derived_files(root or folder.parent, folder.name)
    except OSError as error:
        lost = why_absent(folder) if folder.is_symlink() and not folder.exists() else None
        what, do = lost or (f"cannot be read ({error.strerror or error})", "Let this user read it")
        code = "link-broken" if lost else "folder-unreadable"
        book.add(Level.ERROR, code, found=f"the patient's folder {what}", expected="a folder of files", do=do)
        return PatientFiles({}, "", tuple(book.findings))
    _say_broken_folders(own, book)
    found = by_modality(own, derived, patterns, wanted, book)
    masks = masks_by_words(own, derived, book) if is_by_words(MASK, patterns) else matching([*own, *derived], patterns[MASK])
    found[MASK] = settle_masks(masks, [one.session for files in found.values() for one in files])
    rows = _session_rows(folder, book)
    times = {label: cells.get("acq_time", "") for label, cells in rows.items()}
    label, alone = choose_session(found, run, session, times, book)
    if label is None:
        return PatientFiles({}, "", tuple(book.findings))
    chosen = _of_session(found, label, alone=alone, book=book)
    _say_strangers(chosen, label, book)
    files = _one_each(_same_space(_magnitude(chosen), book), book)
    _say_assumed(files, book)
    _say_missing(own, files, wanted, book)
    _say_absent(files, book)
    there = {kind: one.file for kind, one in files.items()}
    return PatientFiles(there, label, tuple(book.findings), rows.get(bare(label), {}))


def _session_rows(folder: Path, book: Notebook) -> dict[str, Mapping[str, str]]:
    """Rows of the patient's sessions.tsv by label."""
    try:
        return {bare(cells.get(SESSION, "")): cells for cells in session_rows(folder)}
    except DataError as error:
        book.add(Level.WARNING, "sessions-unread", found=str(error), expected="a table of the sessions", do="Correct it")
        return {}


def _say_absent(files: Mapping[str, Candidate], book: Notebook) -> None:
    """Files of which the name is here, and the content is not."""
    for one in files.values():
        try:
            absent = why_absent(one.file)
        except OSError as error:
            absent = f"cannot be read ({error.strerror})", "Let this user read it"
        if absent:
            book.add(Level.ERROR, "file-absent", one.path, found=absent[0], expected="the image itself", do=absent[1])


def _say_broken_folders(own: Sequence[Candidate], book: Notebook) -> None:
    """A link to nothing without a file's ending may have been a session, with all that was in it."""
    for one in own:
        if "." not in one.file.name and one.file.is_symlink() and not one.file.exists():
            what, do = why_absent(one.file) or ("", "")
            book.add(Level.ERROR, "link-broken", one.path, found=what, expected="a folder or a file", do=do)


def _of_session(found: Candidates, label: str, *, alone: bool, book: Notebook) -> Candidates:
    """What is of the session; where it is the only one, a mask that lies in no session's folder is of it too."""
    chosen = {kind: [one for one in files if one.session == label] for kind, files in found.items()}
    if not chosen[MASK] and found[MASK]:
        loose = [one for one in found[MASK] if not one.session]
        if alone and loose:
            return chosen | {MASK: loose}
        book.add(
            *(Level.WARNING, "mask-other-session", found[MASK][0].path),
            found=f"a tumour mask that is not known to be of the session that is used ({label or 'no name'}); not used",
            expected="a mask of the same session",
            do="Put it into the session's folder, or its session into its name, or choose the session in site.toml",
        )
    return chosen


def _say_strangers(chosen: Candidates, label: str, book: Notebook) -> None:
    """Names that say another patient or another session than the folder does."""
    for one in (one for files in chosen.values() for one in files):
        says = {"sub": one.name.entities.get("sub", ""), "ses": one.name.entities.get("ses", "")}
        here = {"sub": book.patient.removeprefix("sub-"), "ses": label.rpartition("/")[2].removeprefix("ses-")}
        for key, word in says.items():
            folder_says = here[key] and (key == "sub" or label.rpartition("/")[2].startswith("ses-"))
            if word and folder_says and bare(word) != bare(here[key]) and (key == "ses" or book.patient.startswith("sub-")):
                book.add(
                    *(Level.ERROR, "name-other-patient" if key == "sub" else "name-other-session", one.path),
                    found=f"the name says {key}-{word}, the folder {key}-{here[key]}",
                    expected="the same in both",
                    do="Find out whose file it is, and rename it or its folder",
                )


def _magnitude(chosen: Candidates) -> Candidates:
    """Without phase, real and imaginary parts, of which none is an image of tissue."""
    return {
        kind: [one for one in files if one.name.entities.get("part", "mag").lower().startswith("mag")]
        for kind, files in chosen.items()
    }


def _same_space(chosen: Candidates, book: Notebook) -> Candidates:
    """Of files of one kind in several spaces those in the space that the most kinds have; the patient's own before others."""
    spaces = Counter(space for files in chosen.values() for space in {one.space for one in files})
    best = min(spaces, key=lambda space: (-spaces[space], space), default="")
    kept = {kind: [one for one in files if one.space == best] or files for kind, files in chosen.items()}
    if any(len(kept[kind]) < len(files) for kind, files in chosen.items()):
        book.add(
            *(Level.NOTE, "space-chosen"),
            found=f"files in the spaces {', '.join(space or OWN for space in sorted(spaces))}; used: {best or OWN}",
            expected="one space: that of the most files, else the patient's own",
            do="Another is used if the globs under [files] of site.toml name it",
        )
    images = {kind: files[0].space for kind, files in kept.items() if files and kind != MASK}
    if len(set(images.values())) > 1:
        book.add(
            *(Level.ERROR, "space-mixed"),
            found="modalities in different spaces: " + ", ".join(f"{kind} in {space or OWN}" for kind, space in images.items()),
            expected="all in one",
            do="Bring them into one space, or leave the others out by globs under [files] of site.toml",
        )
    if kept.get(MASK) and images and kept[MASK][0].space not in images.values():
        book.add(
            *(Level.WARNING, "mask-other-space", kept[MASK][0].path),
            found=f"a tumour mask in the space {kept[MASK][0].space or 'of the patient'}, the images are in another; not used",
            expected="a mask in the space of the images",
            do="Bring it there, or name another by files.mask in site.toml",
        )
        kept[MASK] = []
    return kept


def _one_each(chosen: Candidates, book: Notebook) -> dict[str, Candidate]:
    """The one file of each kind; a name as in BIDS goes before another, T2 and FLAIR without contrast agent before those with."""
    files = {}
    for kind, found in chosen.items():
        exact = [one for one in found if one.exact] or found
        plain = [one for one in exact if kind in ("t1", "t1c", MASK) or contrast_of(one.name) is not Contrast.GIVEN] or exact
        if len(plain) > 1:
            names = ", ".join(sorted(one.path for one in plain)[:SHOWN])
            book.add(
                *(Level.ERROR, "file-twins"),
                found=f"{len(plain)} files match {kind} ({names})",
                expected="one",
                do=f"Which of them is meant is yours to say: narrow files.{kind} in site.toml, or move the others away",
            )
        elif len(plain) < len(found):
            left = next(one for one in found if one not in plain)
            book.add(
                *(Level.NOTE, "file-left", left.path),
                found=f"not used, for {plain[0].path} is the {kind}",
                expected="one file",
                do=f"If this one is meant, name it by files.{kind} in site.toml",
            )
        if plain:
            files[kind] = min(plain, key=lambda one: one.path)
    return files


def _say_assumed(files: Mapping[str, Candidate], book: Notebook) -> None:
    """What was read by silence."""
    plain = files.get("t1")
    if plain and "t1c" not in files and contrast_of(plain.name) is Contrast.SILENT and has_unknown_words(plain.name):
        book.add(
            *(Level.WARNING, "contrast-assumed", plain.path),
            found="read as T1 without contrast agent, for no word of its name that is known here says otherwise",
            expected="ce-AGENT_T1w where agent was given",
            do=f'If it was: t1c = "**/{plain.file.name.replace(book.patient, "*", 1)}" under [files] of site.toml',
        )
    for kind, one in files.items():
        if kind in ("t2", "flair") and contrast_of(one.name) is Contrast.GIVEN:
            book.add(
                *(Level.WARNING, "contrast-given", one.path),
                found=f"a {MODALITIES[kind].title} after contrast agent is used, for there is no other",
                expected="one without",
                do="Put the one without beside it",
            )


def _say_missing(own: Sequence[Candidate], files: Mapping[str, Candidate], wanted: Sequence[str], book: Notebook) -> None:
    """No modality at all; or a file that nobody reads, of which the name speaks of a modality that the patient lacks."""
    unread = [one for one in own if one.name.end and one.file not in {taken.file for taken in files.values()}]
    if not any(kind in files for kind in wanted) and all(one.level is not Level.ERROR for one in book.findings):
        others = ", ".join(one.path for one in (unread or own)[:SHOWN])
        book.add(
            *(Level.ERROR, "modality-none"),
            found="no modality" + (f"; among its files are {others}" if others else ""),
            expected=f"a file for at least one of {', '.join(wanted)} (see files in site.toml)",
            do="Name the files as BIDS does, or say under [files] of site.toml how they are named",
        )
