"""The slice cache: one memory-mapped array a site, named by the content of its sources and the settings.

Layout: `<cache>/<key>/images.npy` [N, S, M, H, W] float16 and `index.json`. Labels and covariates are not in it:
they are read fresh from the site. A build happens under a lock in a folder beside, and is renamed when it is whole.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.config.sections import DataConfig
from common.data.cases import Case, Site, raise_problems
from common.data.covariates import as_array
from common.data.dataset import SiteData
from common.data.slices import prepare_case
from common.errors import DataError
from common.files import locked, sync_folder, write_atomic

VERSION = 1  # raise it when the same sources and settings begin to give other slices
BYTES_PER_WORKER = 2**24  # of source files: for less, starting a process costs more than it saves

Progress = Callable[[int, int], None]  # (patients done, of all)
Prepared = tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]


def default_cache() -> Path:
    """`$FEDMRI_CACHE`, or `~/.cache/fedmri`."""
    return Path(os.environ.get("FEDMRI_CACHE") or Path.home() / ".cache" / "fedmri").expanduser()


def open_site(
    site: Site, data: DataConfig, cache: Path, *, workers: int | None = None, progress: Progress | None = None
) -> SiteData:
    """The site's slices, memory-mapped from the cache, built on first use or where the cache is damaged.

    Args:
        site: as `read_site` found it.
        data: modalities, slices and sizes; another one, or other files, give another cache entry.
        cache: folder for all sites; made where it is absent. The site's own folder is never written to.
        workers: processes that build; None: by the number of cores and the amount of data.
        progress: called while building.

    Raises:
        DataError: patients whose files cannot be used (all of them, by name), or a cache folder that cannot be written.
    """
    key = content_key(site, data)
    stored = _load(cache / key, site, data)
    if stored is None:
        try:
            with locked(cache / f".{key}.lock"):  # one builder a key
                stored = _load(cache / key, site, data)  # another process may just have built it
                if stored is None:
                    _build(site, data, cache / key, _workers(site, workers), progress)
                    stored = _load(cache / key, site, data)
        except OSError as error:
            raise DataError(f"Slice cache {cache}: {error}. Name a folder to write to (FEDMRI_CACHE).") from error
    if stored is None:
        raise DataError(f"Slice cache {cache / key}: cannot be read back. Is the disk full or failing?")
    images, present = stored
    labels = np.array([case.label for case in site.cases], dtype=np.int64)
    covariates = as_array([case.covariates for case in site.cases], data.covariates)
    return SiteData(site.name, tuple(case.id for case in site.cases), images, present, labels, key, covariates, folder=cache)


def content_key(site: Site, data: DataConfig) -> str:
    """SHA-256 over the source files' bytes, the patients' ids, the settings that shape slices, the format's version."""
    cases = [[case.id, {kind: _digest(case, file) for kind, file in case.sources()}] for case in site.cases]
    return hashlib.sha256(json.dumps([VERSION, data.of_slices(), cases], sort_keys=True).encode()).hexdigest()


def _digest(case: Case, file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{case.where(file)}: cannot be read ({error.strerror}).") from error


def _load(folder: Path, site: Site, data: DataConfig) -> Prepared | None:
    """Images and presence from a finished build; None where there is none, or a damaged one."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        present = np.array(index["present"], dtype=bool)
        with (folder / "images.npy").open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == index["sha256"]
        whole = whole and images.shape == _shape(site, data) and images.dtype == np.float16
        return (images, present) if whole and present.shape == images.shape[::2][:2] else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _shape(site: Site, data: DataConfig) -> tuple[int, ...]:
    return (len(site.cases), data.slices, len(data.modalities), data.size, data.size)


def _build(site: Site, data: DataConfig, folder: Path, workers: int, progress: Progress | None) -> None:
    """Make `folder` whole. Only the lock's holder comes here, so what lies about is left from an interrupted build."""
    draft = folder.with_name(f".{folder.name}.partial")
    for stale in (draft, folder):
        if stale.exists():
            shutil.rmtree(stale)
    draft.mkdir()
    try:
        _write(draft, site, data, workers, progress)
        os.rename(draft, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(folder: Path, site: Site, data: DataConfig, workers: int, progress: Progress | None) -> None:
    file, total = folder / "images.npy", len(site.cases)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=_shape(site, data))
    present = np.zeros((total, len(data.modalities)), dtype=bool)
    problems: dict[int, str] = {}
    for done, (row, result) in enumerate(_prepare_all(site.cases, data, workers), start=1):
        if isinstance(result, DataError):
            problems[row] = str(result).removesuffix(".")
        else:
            images[row], present[row] = result
        if progress:
            progress(done, total)
    raise_problems(f"Site {site.name}", [problems[row] for row in sorted(problems)])
    images.flush()
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256").hexdigest()
        os.fsync(content.fileno())
    index = {"version": VERSION, "sha256": checksum, "present": present.tolist()}
    write_atomic(folder / "index.json", json.dumps(index).encode())


def _prepare_all(cases: tuple[Case, ...], data: DataConfig, workers: int) -> Iterator[tuple[int, Prepared | DataError]]:
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


def _outcome(work: Callable[[], Prepared]) -> Prepared | DataError:
    try:
        return work()
    except DataError as error:
        return error


def _workers(site: Site, wanted: int | None) -> int:
    if wanted is not None:
        return max(1, wanted)
    size = sum(file.stat().st_size for case in site.cases for _, file in case.sources())
    return min(len(os.sched_getaffinity(0)), len(site.cases), 1 + size // BYTES_PER_WORKER)
