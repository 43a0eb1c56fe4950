"""The slice cache: one memory-mapped array a site, named by the content of its sources and the settings.

Layout: `<cache>/<key>/images.npy` [N, S, M, H, W] float16 and `index.json`, which holds what was found of every patient, and of
which files of which folder the slices are: `common.data.forgetting` deletes them when one of these is gone. Those
who stay out (`common.data.gate`) have no row. Labels and covariates are not in it: they are read fresh from the site. A build
happens under a lock in a folder beside, and is renamed when it is whole.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from common.config.axes import squares
from common.config.sections import DataConfig
from common.data.cases import UNLABELLED, Case, Site
from common.data.covariates import as_array
from common.data.dataset import SiteData
from common.data.gate.files import companion
from common.data.gate.finding import Finding, Level, StaysOutError
from common.data.gate.masks import EMPTY
from common.data.known_files import KnownFiles, content_sha256
from common.data.slices import prepare_case
from common.errors import ConfigError, DataError
from common.files import locked, sync_folder, write_atomic

VERSION = 2  # raise it when the same sources and settings begin to give other slices
CHECK = "check"  # of index.json
NO_CACHE = "the site cannot write its slice cache; its own log says why"
SPELLED_OUT = 10  # findings in the error of a site that cannot be used
BYTES_PER_WORKER = 2**24  # of source files: for less, starting a process costs more than it saves

Progress = Callable[[int, int], None]  # (patients done, of all)
Sources = dict[str, str]  # digest by kind of file
Prepared = tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_], tuple[Finding, ...]]

logger = logging.getLogger(__name__)
Said = tuple[str, str, tuple[Finding, ...]]  # folder, key and findings
_said: set[Said] = set()  # that this process has logged, or who started it


class Stored(NamedTuple):
    """What a cache entry holds, of N patients that are used."""

    images: npt.NDArray[np.float16]  # [N, S, M, H, W]
    present: npt.NDArray[np.bool_]  # [N, M]
    rows: list[int]  # N, among the patients that were asked for
    findings: tuple[Finding, ...]  # of everybody


def default_cache() -> Path:
    """`$FEDMRI_CACHE`, or `~/.cache/fedmri`."""
    return Path(os.environ.get("FEDMRI_CACHE") or Path.home() / ".cache" / "fedmri").expanduser()


def open_site(
    site: Site,
    data: DataConfig,
    cache: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    read_all: bool = False,
) -> SiteData:
    """The site's slices, memory-mapped from the cache, built on first use or where the cache is damaged.

    Args:
        site: as `read_site` found it.
        data: modalities, slices and sizes; another one, or other files, give another cache entry.
        cache: folder for all sites; made where it is absent. The site's own folder is never written to.
        workers: processes that build; None: by the number of cores and the amount of data.
        progress: called while building.
        read_all: whether every file's content is hashed; else one that looks as it did when it was is taken for the same
            (`common.data.known_files`). `sources` that an audit log tells of need it.

    Returns:
        Those patients who can be used; the log says who stays out and why, and what else was found.

    Raises:
        DataError: nobody can be used (it says why), or a cache folder that cannot be written.
        ConfigError: the run harmonises, and there is no standard yet: its slices would be others than it trains on.
    """
    if data.harmonise and not data.standard:
        raise ConfigError(
            "data.harmonise is set, and data.standard is empty: `fedmri-sim run` and `fedmri-server run` fill it. Set "
            "data.standard, such as standard.json of a run has, or data.harmonise = false."
        )
    asked = site.usable()
    if not asked.cases:
        raise nobody_left(site, site.findings)
    known = KnownFiles(cache, site.root)
    sources = [_sources(case, None if read_all else known) for case in asked.cases]
    key, sha256 = _key(asked, data, sources), content_sha256 if read_all else known.sha256
    stored = _load(cache / key, asked, data, sha256)
    if stored is None:
        try:
            with locked(cache / f".{key}.lock"):  # one builder a key
                stored = _load(cache / key, asked, data, sha256)  # another process may just have built it
                if stored is None:
                    _build(asked, data, cache / key, _workers(asked, workers), progress, sources)
                    stored = _load(cache / key, asked, data, sha256)
        except OSError as error:
            raise DataError(
                f"Slice cache {cache}: {error}. Make room there, or name a folder to write to (FEDMRI_CACHE).", public=NO_CACHE
            ) from error
    if stored is None:
        raise DataError(f"Slice cache {cache / key}: cannot be read back. Is the disk full or failing?")
    known.keep()
    cases, findings = [asked.cases[row] for row in stored.rows], (*site.findings, *stored.findings)
    _say(site, key, findings, len(cases))
    labels = _labels(cases, stored.findings)
    covariates = as_array([case.covariates for case in cases], data.covariates)
    ids = tuple(case.id for case in cases)
    hashes = tuple(_hash(sources[row]) for row in stored.rows)
    arrays = (stored.images, stored.present, labels)
    return SiteData(site.name, ids, *arrays, key, covariates, findings=findings, sources=hashes, folder=cache)


def _labels(cases: Sequence[Case], findings: Sequence[Finding]) -> npt.NDArray[np.int64]:
    """The targets [N]. Where masks are, one that marks nothing is none: it may be that nobody drew it."""
    empty = {one.patient for one in findings if one.code == EMPTY.code}
    labels = (UNLABELLED if case.by_mask and case.id in empty else case.label for case in cases)
    return np.fromiter(labels, np.int64, len(cases))


def nobody_left(site: Site, findings: Sequence[Finding]) -> DataError:
    """The error of a site none of whose patients can be used."""
    errors = [str(one).removesuffix(".") for one in findings if one.level is Level.ERROR]
    more = f"; and {len(errors) - SPELLED_OUT} more" if len(errors) > SPELLED_OUT else ""
    return DataError(f"Site {site.name}: no patient can be used. {'; '.join(errors[:SPELLED_OUT])}{more}.")


def _say(site: Site, key: str, findings: Sequence[Finding], used: int) -> None:
    """Log what was found, once a process and what it starts (`simulation.processes`): who stays out as errors, and the rest."""
    mark = (str(site.root), key, tuple(findings))
    if mark in _said:
        return
    _said.add(mark)
    levels = {Level.ERROR: logging.ERROR, Level.WARNING: logging.WARNING, Level.NOTE: logging.INFO}
    for finding in findings:
        logger.log(levels[finding.level], "Site %s: %s", site.name, finding)
    if used < len(site.cases):
        logger.error("Site %s: %d of %d patients are used; the others stay out.", site.name, used, len(site.cases))


def what_was_said() -> frozenset[Said]:
    """Findings that this process has logged, for `leave_unsaid` of those that it starts."""
    return frozenset(_said)


def leave_unsaid(said: frozenset[Said]) -> None:
    """Log these findings no more: whoever started this process has."""
    _said.update(said)


def content_key(site: Site, data: DataConfig) -> str:
    """SHA-256 over the source files' bytes, the patients' ids, the settings that shape slices, the format's version."""
    return _key(site, data, [_sources(case) for case in site.cases])


def _sources(case: Case, known: KnownFiles | None = None) -> Sources:
    """Of each of the patient's files the digest of its content, as far as it is not known."""
    sha256 = case.sha256 if known is None else known.sha256
    return {kind: _digest(file, sha256) for kind, file in case.sources()}


def person(case: Case) -> str:
    """A patient with the files that they have now: another one where a file was replaced."""
    return f"{case.id} {_hash(_sources(case))}"


def _hash(sources: Sources) -> str:
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def _key(site: Site, data: DataConfig, sources: Sequence[Sources]) -> str:
    cases = [[*_name(case), files] for case, files in zip(site.cases, sources, strict=True)]
    return hashlib.sha256(json.dumps([VERSION, data.of_slices(), cases], sort_keys=True).encode()).hexdigest()


def _name(case: Case) -> list[str]:
    return [case.id, "masks by voxels"] if case.by_voxels else [case.id]


def _digest(file: Path, sha256: Callable[[Path], str]) -> str:
    """Of the content; of a file that cannot be read its error, so that it is tried again when it can be."""
    other = companion(file)
    return " ".join(_digest_of_one(part, sha256) for part in ((file, other) if other else (file,)))


def _digest_of_one(file: Path, sha256: Callable[[Path], str]) -> str:
    try:
        return sha256(file)
    except OSError as error:
        return f"unreadable: {error.errno}"


def _load(folder: Path, site: Site, data: DataConfig, sha256: Callable[[Path], str]) -> Stored | None:
    """A finished build; None where there is none, or a damaged one."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if CHECK in index and index.pop(CHECK) != _check(index):  # earlier versions have none
            return None
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        present, rows = np.array(index["present"], dtype=bool), [int(row) for row in index["rows"]]
        findings = tuple(Finding(**{**row, "level": Level(row["level"])}) for row in index["findings"])
        whole = sha256(folder / "images.npy") == index["sha256"]
        whole = whole and images.shape == _shape(len(rows), data) and images.dtype == np.float16
        whole = whole and set(rows) <= set(range(len(site.cases)))
        return Stored(images, present, rows, findings) if whole and present.shape == images.shape[::2][:2] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _shape(patients: int, data: DataConfig) -> tuple[int, ...]:
    return (patients, len(squares(data)), len(data.modalities), data.size, data.size)


def _build(
    site: Site, data: DataConfig, folder: Path, workers: int, progress: Progress | None, sources: Sequence[Sources]
) -> None:
    """Make `folder` whole. Only the lock's holder comes here, so what lies about is left from an interrupted build."""
    draft = folder.with_name(f".{folder.name}.partial")
    for stale in (draft, folder):
        if stale.exists():
            shutil.rmtree(stale)
    draft.mkdir()
    try:
        _write(draft, site, data, workers, progress, sources)
        os.rename(draft, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(
    folder: Path, site: Site, data: DataConfig, workers: int, progress: Progress | None, sources: Sequence[Sources]
) -> None:
    draft, total = folder / "draft.npy", len(site.cases)
    images = _new_array(draft, _shape(total, data))
    present = np.zeros((total, len(data.modalities)), dtype=bool)
    findings: dict[int, tuple[Finding, ...]] = {}
    out: set[int] = set()
    for done, (row, result) in enumerate(_prepare_all(site.cases, data, workers), start=1):
        if isinstance(result, StaysOutError):
            findings[row] = result.findings
            out.add(row)
        else:
            images[row], present[row], findings[row] = result
        if progress:
            progress(done, total)
    found, rows = [one for row in sorted(findings) for one in findings[row]], [row for row in range(total) if row not in out]
    if not rows:
        raise nobody_left(site, found)
    images.flush()
    checksum = _keep(draft, images, rows, folder / "images.npy")
    people = [f"{case.id} {_hash(files)}" for case, files in zip(site.cases, sources, strict=True)]  # as `person`
    whose = {"root": str(site.root), "people": people, "sources": sources}  # by which `common.data.forgetting` knows what is gone
    index = {"version": VERSION, "sha256": checksum, "present": present[rows].tolist(), "rows": rows, **whose}
    index["findings"] = [asdict(one) for one in found]
    write_atomic(folder / "index.json", json.dumps(index | {CHECK: _check(index)}).encode())


def _new_array(file: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.float16]]":
    """A memory-mapped file with room on the disk: where a page of it could not be written, the kernel would end the process.

    Raises:
        OSError: there is no room.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with file.open("r+b") as content:
            os.posix_fallocate(content.fileno(), 0, file.stat().st_size)
    return array


def _check(index: dict[str, Any]) -> str:
    """A hash over an index, by which a damaged one is known."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _keep(draft: Path, images: npt.NDArray[np.float16], rows: list[int], file: Path) -> str:
    """Make `file` of these rows of the draft, which it takes the place of; returns its SHA-256."""
    if len(rows) == len(images):
        os.rename(draft, file)
    else:
        kept = _new_array(file, (len(rows), *images.shape[1:]))
        for to, row in enumerate(rows):
            kept[to] = images[row]
        kept.flush()
        draft.unlink()
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
        os.fsync(content.fileno())
    return checksum


def _prepare_all(cases: tuple[Case, ...], data: DataConfig, workers: int) -> Iterator[tuple[int, Prepared | StaysOutError]]:
    """Each case's row and slices, or what is wrong with it, as they get ready."""
    left = dict(enumerate(cases))
    if workers > 1:
        # Spawned, not forked: the parent may hold threads (torch, Ray) that a fork would freeze.
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        try:
            # The function's own module is what a worker imports: it must stay free of torch.
            futures = {pool.submit(prepare_case, case, data): row for row, case in left.items()}
            for future in as_completed(futures):
                yield futures[future], _outcome(future.result)
                del left[futures[future]]
        except BrokenProcessPool:
            pass  # a worker was killed, mostly for memory: go on alone, which needs the least
        finally:
            pool.shutdown(cancel_futures=True)
    for row, case in left.items():
        yield row, _outcome(partial(prepare_case, case, data))


def _outcome(work: Callable[[], Prepared]) -> Prepared | StaysOutError:
    try:
        return work()
    except StaysOutError as out:
        return out


def _workers(site: Site, wanted: int | None) -> int:
    if wanted is not None:
        return max(1, wanted)
    size = sum(file.stat().st_size for case in site.cases for _, file in case.sources() if file.is_file())
    return min(len(os.sched_getaffinity(0)), len(site.cases), 1 + size // BYTES_PER_WORKER)
