"""How a gate comes by the warm process that its parent keeps, and says when there is a doubt about it."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from client.gate.bundle_process import run_bundle
from client.gate.warm_bundle import WarmBundle, warm_stamp
from common.errors import FederationError

WARM, END = "warm", "end"  # in a note: the folder of the bundle that one is wanted of; the one that is there is to be ended
LONGEST_NOTE = 64 * 1024  # bytes
PATIENCE = 10.0  # seconds for the parent's answer


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

    def run_bundle(
        self, message: Message, context: Context, folder: Path, *, seconds: float, most: int
    ) -> tuple[RecordDict, Context]:
        """As `client.gate.bundle_process.run_bundle`, by the warm process where there is one; what fails is a doubt about it."""
        warm = self.for_bundle(folder)
        try:
            return run_bundle(message, context, folder, seconds=seconds, most=most, warm=warm, on_doubt=self.end)
        except FederationError:
            self.end()
            raise

    def for_bundle(self, folder: Path) -> WarmBundle | None:
        """The warm process of this bundle, which is approved: the one that is there, if nothing has changed since it was started;
        else it is ended, and another is started. None where there can be none.
        """
        stamp = warm_stamp(folder, self.policy)
        if self.warm and (self.warm.folder, self.warm.stamp) == (folder, stamp):
            return self.warm
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, its, suppress(OSError):
            ours.settimeout(PATIENCE)
            socket.send_fds(self.notes, [json.dumps({WARM: str(folder)}).encode()], [its.fileno()])
            its.close()
            told, files, *_ = socket.recv_fds(ours, LONGEST_NOTE, 1)
            if files:
                return WarmBundle(folder, told.decode(), socket.socket(fileno=files[0]))
        return None

    def end(self) -> None:
        """There is a doubt about the warm process."""
        with suppress(OSError):
            self.notes.send(json.dumps({END: True}).encode())
