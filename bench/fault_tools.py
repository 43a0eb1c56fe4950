"""What `faults.py` does to a real federation: a network that is cut, a small disk, processes that stand still, lies."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.deployment.federation import ROOT, Hospital, carrying

PAGE = 4096  # bytes; of the kernel, and of a small disk
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

    def close(self) -> None:
        """No way any more."""
        self.cut()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
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


def fill(folder: Path, leave: int = 0) -> Path:
    """Fill the disk of a folder but for `leave` bytes; returns the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)):
                pass
        except OSError:
            if leave:
                file.truncate(max(0, file.tell() - leave))
    return filler


@contextmanager
def full_file(file: Path, folder: Path) -> Iterator[None]:
    """A file lies on a full disk of its own meanwhile, mounted at `folder`: it can grow to the end of its last page."""
    with small_disk(folder, 256):
        shutil.copy(file, folder / file.name)
        subprocess.run(["mount", "--bind", str(folder / file.name), str(file)], check=True)
        try:
            fill(folder)
            yield
        finally:
            subprocess.run(["umount", "-l", str(file)], check=False)
            shutil.copy(folder / file.name, file)


@contextmanager
def changed(site: Hospital, line: str, to: str) -> Iterator[None]:
    """A changed site.toml meanwhile."""
    text = (site.home / "site.toml").read_text()
    site.change(line, to)
    assert (site.home / "site.toml").read_text() != text, line
    try:
        yield
    finally:
        (site.home / "site.toml").write_text(text)


def trick(site: Hospital, *words: str) -> None:
    """From now on the site's gate answers falsely, one lie a round (see hostile.py); without words: honestly again."""
    launcher = site.home / "state" / "bin" / "flwr-clientapp"
    honest = launcher.with_suffix(".honest")
    if not honest.exists():
        launcher.rename(honest)
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HOSTILE}" "{ROOT}" "{site.home / "trick"}" "$@"\n')
        launcher.chmod(0o755)
    (site.home / "trick").write_text("\n".join(words))


@contextmanager
def standing_still(site: Hospital) -> Iterator[None]:
    """All of a hospital's processes are stopped (SIGSTOP), as on a machine that hangs; then they go on."""
    pids = family(site)
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def family(site: Hospital) -> list[int]:
    """Ids of a hospital's processes: the supervisor, its programs, and the bundle's, whose environment does not name the site."""
    known = {int(json.loads((site.home / "state" / "supervisor.json").read_text())["pid"])}
    known |= set(carrying("FEDMRI_SITE", str(site.home.resolve() / "site.toml")))
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in known} - known:
        known |= more
    return sorted(known)
