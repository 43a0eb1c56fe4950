"""Where changes wait for the end of a round outside memory: those of a thousand virtual sites would be most of it.

In simulation alone. What a hospital sends is written to no disk.
"""

import os
from tempfile import TemporaryFile, gettempdir

import numpy as np

from common.errors import FederationError
from common.messages.update import Update
from common.models.arrays import Arrays


class Shelf:
    """The changes of one round, in a file that has no name and ends with the process."""

    def __init__(self) -> None:
        self._file = TemporaryFile(prefix="fedmri-", buffering=0)  # noqa: SIM115  open as long as the shelf is there
        self._end = 0

    def clear(self) -> None:
        """Let go of all: nobody reads the changes of an earlier round."""
        self._file.truncate(0)
        self._end = 0

    def keep(self, update: Update) -> "Shelved":
        """The same update, whose change is read again whenever somebody asks for it.

        Raises:
            FederationError: there is no room for it.
        """
        shapes = {name: array.shape for name, array in update.change.items()}
        data = b"".join(np.ascontiguousarray(array, np.float32).tobytes() for array in update.change.values())
        try:
            written = os.pwrite(self._file.fileno(), data, self._end)
        except OSError:
            written = 0
        if written != len(data):
            raise FederationError(f"{gettempdir()}: no room for a round's changes. Free some, or name another folder by TMPDIR.")
        self._end += len(data)
        return Shelved(self, self._end - len(data), shapes, update.norm)

    def read(self, start: int, shapes: dict[str, tuple[int, ...]]) -> Arrays:
        """The arrays that lie at a place."""
        found, place = {}, start
        for name, shape in shapes.items():
            data = os.pread(self._file.fileno(), 4 * int(np.prod(shape, dtype=np.int64)), place)
            found[name] = np.frombuffer(data, np.float32).reshape(shape)
            place += len(data)
        return found


class Shelved(Update):
    """An update whose change is on the shelf."""

    _shelf: Shelf
    _start: int
    _shapes: dict[str, tuple[int, ...]]

    def __init__(self, shelf: Shelf, start: int, shapes: dict[str, tuple[int, ...]], norm: float) -> None:
        # `norm` stands where the cached property looks first: as it was before the change went to the shelf.
        for name, value in {"_shelf": shelf, "_start": start, "_shapes": shapes, "norm": norm}.items():
            object.__setattr__(self, name, value)

    @property
    def change(self) -> Arrays:
        """Read anew each time."""
        return self._shelf.read(self._start, self._shapes)
