"""A process that has imported an approved bundle's code, and forks a child for each message: what importing costs is paid once.

It has seen no message and no patient, and nothing comes back from a child, so that nothing travels from one message to the next.
Each child is held as a process of its own is (`client.gate.bundle_process`): to its time, to the size of its answer; its process
group ends with it, and it ends with the gate.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.gate.stamp import file_stamp, packages_stamp, stamp_of
from common.config.site import SITE_VARIABLE
from common.deployment.supervisor import die_with_parent

START_SECONDS = 120.0  # for the import, on a machine that is busy; no more than half of the message's own time
MAIN = Path(__file__).with_name("bundle_main.py")
CHILD = END = 4  # bytes that tell a child's number, and how it ended


class TooLateError(Exception):
    """The answer did not come in time."""


class TooLargeError(Exception):
    """The answer is longer than it may be."""


@dataclass(frozen=True)
class WarmBundle:
    """Such a process, as gates know it.

    Attributes:
        folder: the unpacked bundle.
        stamp: what it was started under (`warm_stamp`).
        control: where it is asked.
    """

    folder: Path
    stamp: str
    control: socket.socket

    def answer(self, request: bytes, *, seconds: float, most: int) -> tuple[bytes, int] | None:
        """Have a child answer.

        Args:
            request: what it reads on stdin.
            seconds: after which it is ended.
            most: bytes that the answer may have.

        Returns:
            What it wrote to stdout and its exit code; None where the process is gone, and nothing was begun.

        Raises:
            TooLateError, TooLargeError: the child is ended then.
        """
        began, child = time.monotonic(), b""
        deadline = began + seconds
        life, its = socket.socketpair()
        reading, writing = os.pipe()
        asked = os.memfd_create("message")
        with life, open(reading, "rb", buffering=0) as told:
            try:
                with its, open(asked, "wb") as file, open(writing, "wb", buffering=0) as out:
                    file.write(request)
                    file.flush()
                    file.seek(0)
                    socket.send_fds(self.control, [b"m"], [file.fileno(), out.fileno(), its.fileno()])
            except OSError:
                return None
            with suppress(TooLateError):
                child = _received(life, CHILD, began + min(START_SECONDS, seconds / 2))
            if len(child) != CHILD:
                return None
            end = b""
            try:
                content = _read(told.fileno(), life, deadline, most)
                end = _received(life, END, deadline)
            finally:
                if len(end) != END:  # who would end the child's own processes may be gone
                    with suppress(OSError):
                        os.killpg(int.from_bytes(child, "big"), signal.SIGKILL)
        return content, int.from_bytes(end, "big", signed=True) if len(end) == END else -signal.SIGKILL


@dataclass(frozen=True)
class WarmProcess:
    """Such a process, as its parent knows it.

    Attributes:
        bundle: what gates are handed of it.
        process: the head of a process group of its own.
    """

    bundle: WarmBundle
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, folder: Path, policy: tuple[Path, ...]) -> "WarmProcess":
        """Start one, as a child that ends with this process; it may be asked at once.

        Raises:
            OSError: the system starts no more processes.
        """
        stamp = warm_stamp(folder, policy)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            process = subprocess.Popen(
                [sys.executable, str(MAIN), str(folder), str(its.fileno())],
                cwd=folder,
                env=bundle_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(its.fileno(),),
                preexec_fn=die_with_parent,  # noqa: PLW1509  one system call
                process_group=0,
            )
        return cls(WarmBundle(folder, stamp, ours), process)

    def end(self) -> None:
        """Kill it, and the child that is at work with all that it has started."""
        self.bundle.control.close()
        if self.gone():
            return
        number = self.process.pid
        with suppress(OSError):
            os.kill(number, signal.SIGSTOP)  # it forks no other
            for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
                os.killpg(int(child), signal.SIGKILL)
        with suppress(OSError):
            os.killpg(number, signal.SIGKILL)
        self.process.wait()

    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None


def warm_stamp(folder: Path, policy: tuple[Path, ...]) -> str:
    """Of all that a warm process stands for: the bundle's files, the installed packages, the hospital's rules.

    Args:
        folder: the unpacked bundle.
        policy: site.toml and the approvals.
    """
    return " ".join([stamp_of(folder), packages_stamp(), *map(file_stamp, policy)])


def bundle_environment() -> dict[str, str]:
    """Ours, without what would lead the bundle to the installed code or to the site's files."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", SITE_VARIABLE)}


def _received(life: socket.socket, size: int, deadline: float) -> bytes:
    """So many bytes from the socket; fewer where it ends.

    Raises:
        TooLateError: it is silent.
    """
    found = b""
    while len(found) < size:
        life.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            part = life.recv(size - len(found))
        except TimeoutError:
            raise TooLateError from None
        except OSError:
            return found
        if not part:
            return found
        found += part
    return found


def _read(told: int, life: socket.socket, deadline: float, most: int) -> bytes:
    """All that comes through a pipe; no more than is there once `life` speaks or ends: the child is over then.

    Raises:
        TooLateError, TooLargeError: as they say.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        ready = select.select([told, life.fileno()], [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise TooLateError
        if told not in ready:  # what the child has started, and left alive, may hold the pipe open
            return b"".join(parts)
        part = os.read(told, 1 << 20)
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > most:
            raise TooLargeError
        parts.append(part)
