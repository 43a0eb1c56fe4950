"""What `faults.py` does to a real federation: a network that is cut, a small disk, a wrong clock, a gate that lies."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.deployment.federation import ROOT, Hospital

HOSTILE = Path(__file__).with_name("hostile.py")


class Proxy:
    """A way to the server that can be cut: what is on it then is dropped, and nothing gets through until it is mended."""

    def __init__(self, port: int) -> None:
        self.target, self.open = port, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop what is on the way, and refuse what comes."""
        self.open = False
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.sockets.clear()

    def mend(self) -> None:
        """Let new connections through."""
        self.open = True

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if not self.open:
                client.close()
                continue
            with suppress(OSError):
                server = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.close()


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """A small disk (tmpfs) at `folder`; yields what makes it larger. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,size=512m", str(folder)], check=True)

    try:
        yield grow
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def trick(site: Hospital, *words: str) -> None:
    """From now on the site's gate answers falsely, one lie a round (see hostile.py); without words: honestly again."""
    launcher = site.home / "state" / "bin" / "flwr-clientapp"
    honest = launcher.with_suffix(".honest")
    if not honest.exists():
        launcher.rename(honest)
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HOSTILE}" "{ROOT}" "{site.home / "trick"}" "$@"\n')
        launcher.chmod(0o755)
    (site.home / "trick").write_text("\n".join(words))


# Loaded by every Python of the site before anything else. (libfaketime makes Python's own waits hang or fail, and the SuperNode's
# gRPC counts its waits by time.time and the kernel's clock together: there the clock that signs is enough.)
WRONG_CLOCK = """
import datetime, time
from pathlib import Path
true, Datetime = time.time, datetime.datetime

class Ahead(Datetime):
    @classmethod
    def now(cls, tz=None):
        return Datetime.fromtimestamp(true() + 7200, tz)

    @classmethod
    def utcnow(cls):
        return Datetime.utcfromtimestamp(true() + 7200)

datetime.datetime = Ahead
if b"flower-supernode" not in Path("/proc/self/cmdline").read_bytes():
    time.time = lambda: true() + 7200
"""


@contextmanager
def wrong_clock(folder: Path) -> Iterator[None]:
    """Whatever is started meanwhile lives two hours ahead, and so do the processes that it starts later: `folder` stays."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
    os.environ["PYTHONPATH"], before = str(folder), os.environ.get("PYTHONPATH")
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
