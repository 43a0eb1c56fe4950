"""Patterns under `[files]` of site.toml that fit no file of any patient: a modality would be missing everywhere in silence."""

from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath

from common.config.modalities import FilePatterns
from common.data.gate.candidates import Candidate, derived_files, matching, own_files
from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.modality_files import is_by_words

NOBODY = Kind("pattern-nobody", Level.WARNING, "a pattern under [files] of site.toml that fits no file of any patient")
KINDS = (NOBODY,)
LOOKED_AT = 20  # patients among whose files the nearest name is looked for


def idle_patterns(
    root: Path, folders: Sequence[Path], patterns: FilePatterns, usual: FilePatterns, used: Collection[Path]
) -> Iterator[Finding]:
    """A warning for each kind of file whose patterns fit nobody.

    Args:
        root: the data folder.
        folders: the patients'.
        patterns: of site.toml.
        usual: those of a site without one, which are nobody's mistake.
        used: the patients' files that are used.
    """
    told = {k: globs for k, globs in patterns.items() if globs and globs != usual.get(k) and not is_by_words(k, patterns)}
    nearby: list[Candidate] = []
    for number, folder in enumerate(folders):
        if not told:
            return
        files = _files(root, folder)
        told = {kind: globs for kind, globs in told.items() if not matching(files, globs)}
        nearby += [one for one in files if one.file not in used] if number < LOOKED_AT else []
    for kind, globs in told.items():
        shown = " or ".join(repr(glob) for glob in globs)
        near = _nearest(nearby, globs)
        found = f"files.{kind} = {shown} fits no file of any patient" + (f"; the nearest name is {near!r}" if near else "")
        do = f'Correct it in site.toml; files.{kind} = "" where there are none.'
        yield NOBODY.finding(found, "a pattern of the files' names, from the patient's folder on", do, file="site.toml")


def _files(root: Path, folder: Path) -> list[Candidate]:
    try:
        return [*own_files(folder), *derived_files(root, folder.name)]
    except OSError:  # which `find_files` says
        return []


def _nearest(files: Sequence[Candidate], globs: Sequence[str]) -> str:
    """Of the files' paths the one whose name is most like what a glob says; "": there is no file. Images go before others."""
    images = [one for one in files if one.name.end] or list(files)
    words = [PurePosixPath(glob).name.replace("*", "") for glob in globs]

    def likeness(one: Candidate) -> float:
        return max(_likeness(one.file.name, word) for word in words)

    return max(images, key=likeness).path if images else ""


def _likeness(name: str, word: str) -> float:
    """Of a file's name and the letters of a glob, which stand at the end of most names; 0 to 1."""
    return SequenceMatcher(None, name[-len(word) - 4 :].lower(), word.lower(), autojunk=False).ratio()
