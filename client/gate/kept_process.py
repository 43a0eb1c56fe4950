"""What a gate knows of the warm process that its parent keeps, and how it says what is to become of it."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.gate.warm_bundle import WarmBundle, warm_stamp

WARM, END = "warm", "end"  # in a note: the folder of the bundle to be kept warm; the warm one is to be ended
LONGEST_NOTE = 64 * 1024  # bytes


@dataclass(frozen=True)
class KeptProcess:
    """The warm process, as it was when the gate was forked.

    Attributes:
        policy: site.toml and the approvals: where they change, the process goes.
        warm: None where there is none.
        notes: to the parent, as JSON.
    """

    policy: tuple[Path, ...]
    warm: WarmBundle | None
    notes: socket.socket

    def for_bundle(self, folder: Path) -> WarmBundle | None:
        """The warm process of this very bundle, if nothing has changed since it was started; else it is ended."""
        if self.warm is None:
            return None
        if self.warm.folder == folder and self.warm.stamp == warm_stamp(folder, self.policy):
            return self.warm
        self.end()
        return None

    def keep(self, folder: Path) -> None:
        """An approved bundle has answered: there should be a warm process for the next message."""
        self._note({WARM: str(folder)})

    def end(self) -> None:
        """There is a doubt about the warm process."""
        self._note({END: True})

    def _note(self, note: dict[str, object]) -> None:
        with suppress(OSError):
            self.notes.send(json.dumps(note).encode())
