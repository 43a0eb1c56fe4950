"""Files that are either whole or not there: write beside, fsync, rename."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old bytes or all the new ones, even after a crash.

    Args:
        path: its folder is made where it is absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path, content, 0o666) as name:  # less the umask, as any new file
        os.replace(name, path)
    sync_folder(path.parent)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all, and never over another.

    Raises:
        FileExistsError: there is something at `path`.
    """
    with _beside(path, content, 0o600) as name:
        try:
            os.link(name, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, as on a USB stick
            if path.exists():
                raise FileExistsError(path) from None
            os.replace(name, path)
    sync_folder(path.parent)


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


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
