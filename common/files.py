"""Files that are either whole or not there (write beside, fsync, rename), and locks between processes."""

import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old bytes or all the new ones, even after a crash.

    The folder of `path` is made where it is absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), _beside(path, content, 0o666) as name:  # less the umask, as any new file
        os.replace(name, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into piece by piece, which takes the place of `path` once all is written; after an error, nothing changed.

    The folder of `path` is made where it is absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with naming(path):
            with name.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
    finally:
        name.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file that only its owner may read from the first byte on, whole or not at all.

    With `replace` it takes the place of what is there.

    Raises:
        FileExistsError: there is something at `path`, which is not to be replaced.
    """
    with naming(path), _beside(path, content, 0o600) as name:
        if replace:
            os.replace(name, path)
        else:
            _move(name, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing `path` name it: of a full disk the system tells no file, and of what is written beside it that one."""
    try:
        yield
    except OSError as error:
        told = error.filename
        beside = isinstance(told, str) and Path(told).name.startswith(f".{path.name}.")
        if error.errno is not None and (told is None or beside):
            error.filename = str(path)
        raise


def _move(name: Path, path: Path) -> None:
    """Let the file be at `path` too, or instead, but never over another: a rename would not ask."""
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as on a USB stick
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(name, path)


@contextlib.contextmanager
def _beside(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """The content safely on disk under another name, which is gone afterwards."""
    name = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def remove_unfinished(path: Path) -> None:
    """Remove what writes of `path` that were killed left beside it. Only for who alone writes it: others may be at it."""
    for left in path.parent.glob(f".{path.name}.*"):
        if re.fullmatch("[0-9a-f]{32}", left.name.rpartition(".")[2]):
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(path: Path, *, wait: bool = True, shared: bool = False, mode: int = 0o666) -> IO[bytes]:
    """Hold a file's lock until what is returned is closed; the kernel frees the lock of a process that dies.

    Args:
        path: opened for reading and for writing at its end; it and its folder are made where they are absent.
        wait: until nobody else holds it.
        shared: with others who share it, against those who do not.
        mode: of a new file, less the umask.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode), "r+b", buffering=0)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


def held(path: Path) -> bool:
    """Whether a process holds a file's lock (`locked`). It only looks: the right to read is enough, on a read-only mount too.

    Raises:
        OSError: the file is there and cannot be looked at.
    """
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
