"""SHA-256 of files that were read before, known by what the file system says of them: for the slice cache alone.

CACHE/digests/SITE.json   by file: size, mtime, ctime and inode as they were when it was read, and the hash of its content

What a ledger or an audit log says of the data is of content that was read for it. A file that changed within seconds before it
was read is not kept: it could change once more in the same tick of the clock, and look the same (git's "racily clean" entries).
"""

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from common.files import write_atomic

FOLDER = "digests"
TICK = 2 * 10**9  # nanoseconds: the coarsest clock of a file system in use (FAT's)

Stamp = list[int]  # size, mtime, ctime, inode


def content_sha256(file: Path) -> str:
    """Of the content.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class KnownFiles:
    """What is known of a data folder's files.

    Args:
        cache: of the slices.
        root: the data folder.
    """

    def __init__(self, cache: Path, root: Path) -> None:
        self._path = cache / FOLDER / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
        self._known = _read(self._path)
        self._new = False

    def sha256(self, file: Path) -> str:
        """Of the content, as it is or as it was when the file had this stamp.

        Raises:
            OSError: there is no such file, or it cannot be read.
        """
        stamp, now = _stamp(file), time.time_ns()
        known = self._known.get(str(file))
        if known is not None and known[0] == stamp:
            return known[1]
        digest = content_sha256(file)
        if _stamp(file) == stamp and now - max(stamp[1:3]) > TICK:
            self._known[str(file)] = (stamp, digest)
            self._new = True
        return digest

    def keep(self) -> None:
        """For the next process; a cache that cannot be written is done without."""
        if self._new:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._path, json.dumps(self._known).encode())


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(path: Path) -> dict[str, tuple[Stamp, str]]:
    """Nothing where it is absent or damaged; a digest that is wrong leads to a cache entry that is not there."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {str(file): ([int(number) for number in stamp], str(digest)) for file, (stamp, digest) in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
