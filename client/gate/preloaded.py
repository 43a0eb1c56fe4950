"""The process that a site's gates are forked from: it has imported the gate's code, and keeps an approved bundle's process warm.

`python -m client.gate.preloaded NUMBER`, started by the site's SuperExec (`client.gate.executor`), whose socket has that number.
It reads no message: each gate that it forks reads site.toml and the approvals anew, and tells it by a note what it has settled.

    from SuperExec   the arguments of a gate, and back whether it was forked (`client.gate.fork_request`)
    from a gate      a note, as JSON: END; or WARM with the folder of an approved bundle, and a socket to hand its warm process to
"""

import gc
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from client.gate.__main__ import LOG_FORMAT
from client.gate.__main__ import main as answer_one
from client.gate.approvals import LIST_NAME
from client.gate.fork_request import LEFT, LONGEST, TAKEN
from client.gate.kept_process import END, LONGEST_NOTE, WARM, KeptProcess
from client.gate.stamp import installed_stamp
from client.gate.warm_bundle import WarmProcess, warm_stamp
from common.config.site import SITE_VARIABLE
from common.deployment.process_end import end_with
from common.deployment.supervisor import die_with_parent

IDLE_SECONDS = 600.0  # after the last message the memory is given back
MESSAGES = 1000  # that one warm process forks for
LOOK_SECONDS = 1.0  # between two looks at the hospital's rules, while a bundle is warm
logger = logging.getLogger("fedmri.gate")


@dataclass
class Preloaded:
    """The parent of a site's gates.

    Attributes:
        control: SuperExec's.
        site: path of site.toml.
    """

    control: socket.socket
    site: Path
    gates: set[int] = field(default_factory=set)  # process ids
    warm: WarmProcess | None = None
    doubted: bool = False
    failed: str = ""  # stamp of a bundle that cannot be kept warm
    messages: int = 0
    used: float = 0.0  # when a gate was last there

    def __post_init__(self) -> None:
        self.installed = installed_stamp()
        self.notes, self.told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def policy(self) -> tuple[Path, ...]:
        """The files in which the hospital says what may run."""
        return self.site, self.site.parent / LIST_NAME

    def serve(self) -> None:
        """Fork a gate for each request, until SuperExec is gone."""
        gc.collect()
        gc.freeze()
        while True:
            waits = LOOK_SECONDS if self.gates or self.warm else None
            ready, _, _ = select.select([self.control, self.notes], [], [], waits)
            if self.notes in ready:
                self._hear()
            self._tend()
            if self.control in ready:
                if not self.control.recv(LONGEST, socket.MSG_PEEK):
                    return
                old = installed_stamp() != self.installed
                if old and not self.gates:
                    self._restart()
                request = self.control.recv(LONGEST)
                taken = not old and self._fork(json.loads(request))
                self.control.send(TAKEN if taken else LEFT)

    def close(self) -> None:
        """End the warm process. Gates that are at work see by themselves that SuperExec is gone."""
        if self.warm:
            self.warm.end()
            self.warm = None

    def _hear(self) -> None:
        """One gate's note."""
        note, files, *_ = socket.recv_fds(self.notes, LONGEST_NOTE, 1)
        told = json.loads(note)
        self.doubted = self.doubted or bool(told.get(END))
        for file in files:
            with socket.socket(fileno=file) as gate:
                self._give(Path(told[WARM]), gate)

    def _give(self, folder: Path, gate: socket.socket) -> None:
        """Hand a gate a warm process of this bundle; where there is one, it is of another, or of what has changed.

        Gates have messages answered one at a time (`client.gate.replay_guard.alone`): none is at work in the old one.
        """
        if self.warm:
            self._end(self.warm)
        self._start(folder)
        if self.warm:
            with suppress(OSError):
                bundle = self.warm.bundle
                socket.send_fds(gate, [bundle.stamp.encode()], [bundle.control.fileno()])

    def _tend(self) -> None:
        """Take note of gates that have ended; end the warm process where that is due, while none is at work."""
        for gate in list(self.gates):
            if os.waitpid(gate, os.WNOHANG)[0]:
                self.gates.remove(gate)
                self.used = time.monotonic()
        if self.gates:
            return
        if self.warm and (self.doubted or self._is_over(self.warm)):
            self._end(self.warm)

    def _start(self, folder: Path) -> None:
        """Keep this bundle warm, unless it has turned out that it cannot be."""
        if warm_stamp(folder, self.policy) == self.failed:
            return
        try:
            self.warm, self.messages, self.doubted, self.used = WarmProcess.start(folder, self.policy), 0, False, time.monotonic()
        except (OSError, subprocess.SubprocessError):
            logger.exception("No warm process could be started: the next message gets one of its own.")

    def _end(self, warm: WarmProcess) -> None:
        if warm.gone() and (warm.process.returncode or 0) > 0:  # by itself: not killed, nor after a message that failed
            self.failed = warm.bundle.stamp
            logger.warning("The bundle cannot be kept warm (see above): each message gets a process that is started for it.")
        self.close()
        logger.info("The warm process of the bundle is ended.")

    def _is_over(self, warm: WarmProcess) -> bool:
        """Whether its time is over, or it stands for what is no more."""
        late = time.monotonic() - self.used > IDLE_SECONDS or self.messages >= MESSAGES
        return late or warm.gone() or warm.bundle.stamp != warm_stamp(warm.bundle.folder, self.policy)

    def _restart(self) -> NoReturn:
        """Begin anew by the code that is installed now; the request waits in the socket."""
        self.close()
        os.set_inheritable(self.control.fileno(), True)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "client.gate.preloaded", str(self.control.fileno())])

    def _fork(self, arguments: list[str]) -> bool:
        """A gate of its own for one message; whether there is one."""
        self.messages += 1
        try:
            gate = os.fork()
        except OSError:
            logger.exception("No gate could be forked.")
            return False
        if not gate:
            self.control.close()
            self.notes.close()
            warm = self.warm.bundle if self.warm and not self.doubted else None
            end_with(lambda: answer_one(arguments, KeptProcess(self.policy, warm, self.told)))
        self.gates.add(gate)
        return True


def main() -> None:
    """Serve until SuperExec is gone, or SIGTERM."""
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    die_with_parent()  # once more, where this process has begun anew
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parent = Preloaded(socket.socket(fileno=int(sys.argv[1])), Path(os.environ[SITE_VARIABLE]))
    try:
        parent.serve()
    finally:
        parent.close()


if __name__ == "__main__":
    main()
