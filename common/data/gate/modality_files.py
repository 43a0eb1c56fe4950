"""Which of a patient's files is which modality: by the globs of site.toml, else by the words of BIDS names."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from common.config.modalities import MASK, MASKS, MODALITIES, FilePatterns
from common.data.gate.candidates import Candidate, Candidates, Notebook, matching, without_copies
from common.data.gate.finding import Kind, Level
from common.data.gate.names import Contrast, agent_of, as_glob, contrast_of, contrast_with, suffix_of
from common.data.gate.sessions import session_above, session_named

UNCLEAR = Kind("contrast-unclear", Level.ERROR, "a T1 of which the name does not tell whether contrast agent was given")
BY_NAME = Kind("contrast-by-name", Level.NOTE, "a contrast T1 that other words than BIDS' ce- tell")
KINDS = (UNCLEAR, BY_NAME)
BY_WORDS = ("bids", "bids_flat", "anywhere")  # namings by which words of the name decide
T1S = {"t1", "t1c"}


def by_modality(
    own: Sequence[Candidate], derived: Sequence[Candidate], patterns: FilePatterns, wanted: Sequence[str], book: Notebook
) -> Candidates:
    """All that could be one of the modalities, each with its session.

    Args:
        own: the patient's files.
        derived: those under `derivatives/`, of which a glob may speak.
        patterns: of site.toml.
        wanted: modalities.
        book: for what is said about the names.
    """
    told = {kind: matching([*own, *derived], patterns[kind]) for kind in (*wanted, MASK) if not is_by_words(kind, patterns)}
    found: Candidates = {kind: [] for kind in wanted}
    for kind in told.keys() & {*wanted}:
        other = {one.path for name in MODALITIES[kind].unlike for one in told.get(name, [])}
        other |= {one.path for one in told[kind] if kind == "t1" and "t1c" not in told and "ce" in one.name.entities}
        found[kind] = [replace(one, session=session_named(one)) for one in told[kind] if one.path not in other]
    taken = {one.path for files in (*found.values(), told.get(MASK, [])) for one in files}
    by_words = {kind: patterns[kind] for kind in wanted if kind not in told}
    for one in own:
        if one.path in taken or not one.name.end or one.name.is_scout:
            continue
        name, exact = _read(one, by_words, book)
        if name:
            lies = one.folders and one.folders[-1] in MODALITIES[name].folders
            found[name].append(replace(one, session=session_above(one) if lies else session_named(one), exact=exact))
    return {kind: list(without_copies(files)) for kind, files in found.items()}


def is_by_words(kind: str, patterns: FilePatterns) -> bool:
    """Whether the globs stand for BIDS, so that words of the name decide; a site's own, or BraTS', mean what they say."""
    if kind != MASK and MODALITIES[kind].picture:
        return False
    globs = tuple(patterns.get(kind, ()))
    return globs == MASKS if kind == MASK else globs in [MODALITIES[kind].globs(naming) for naming in BY_WORDS]


def _read(one: Candidate, patterns: FilePatterns, book: Notebook) -> tuple[str | None, bool]:
    """The modality that a file's name says, and whether it says so as BIDS does."""
    here = [kind for kind, globs in patterns.items() if _lies_right(one, kind, globs)]
    exact = [kind for kind in here if fnmatchcase(one.name.stem, f"*_{MODALITIES[kind].pattern}")]
    wide = suffix_of(one.name)
    if wide == "t1" and T1S & {*here}:
        kind = _read_t1(one, book)
        return kind if kind in here else None, bool(exact)
    if exact and wide in (None, exact[0]):
        return exact[0], True
    return wide if wide in here else None, False


def _lies_right(one: Candidate, kind: str, globs: Sequence[str]) -> bool:
    """Whether a file lies in a folder that may hold the modality."""
    row = MODALITIES[kind]
    if tuple(globs) == row.globs("bids"):
        return bool(one.folders) and one.folders[-1] in row.folders
    return not one.folders or tuple(globs) == row.globs("anywhere")


def _read_t1(one: Candidate, book: Notebook) -> str | None:
    """With contrast agent or without; None where that cannot be known, which is said."""
    name = one.name
    said = contrast_of(name)
    told = contrast_with(said, agent_of(one.file.with_name(f"{name.stem}.json")))
    line = f'"**/{as_glob(name)}"'
    if told is Contrast.UNCLEAR:
        why = "name and sidecar contradict each other" if said is not Contrast.UNCLEAR else "the name can be read either way"
        book.add(
            UNCLEAR,
            one.path,
            found=f"of contrast agent {why}",
            expected="a T1 of which it is known whether contrast agent was given",
            do=f"Say it in site.toml, under [files]: t1c = {line}, or t1 = {line}.",
        )
        return None
    if told is Contrast.GIVEN and "ce" not in name.entities:
        book.add(
            BY_NAME,
            one.path,
            found=f"read as the T1 with contrast agent, by {'its sidecar' if said is Contrast.SILENT else 'its name'}",
            expected="ce-AGENT_T1w, as BIDS names it",
            do=f"If it is none, say so in site.toml, under [files]: t1 = {line}.",
        )
    return "t1c" if told is Contrast.GIVEN else "t1"
