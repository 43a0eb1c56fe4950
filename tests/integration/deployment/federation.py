"""A real federation on the loopback: a coordinator's home, hospitals' homes, real SuperLink, SuperNodes and nginx over TLS."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.cli.main import main as site_main
from client.deployment.home import open_home
from client.deployment.status import site_status
from common.deployment.supervisor import running
from server.cli.main import main as server_main
from simulation.cli import main as sim_main

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *(
        "data.size=64",
        "data.slices=2",
        "head_rounds=1",
        'model.pooling="mean"',
        "head_views=0",
        "centre_features=false",
        "head_steps=5",
        "local_epochs=1",
        "training.batch_size=4",
        "local_crops=0",
    ),
    *("bootstrap=20", "evaluation.every=0", "min_sites=2", "round_timeout=240", "round_retries=2", "baselines=false"),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something that is expected; fail with its name. A look that costs much is taken less often."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if true():
            return
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(max(0.2, 4 * (time.monotonic() - began)))


def carrying(variable: str, value: str) -> list[int]:
    """Ids of the processes whose environment has `variable=value`."""
    wanted, found = f"{variable}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


@dataclass
class Hospital:
    """One site, driven through its own commands."""

    name: str
    home: Path
    data: Path

    def join(self, server: str, ca: Path) -> None:
        assert site_main(["init", str(self.home), "--server", server, "--ca", str(ca), "--data", str(self.data)]) == 0
        self.change(r"^min_patients = .*$", "min_patients = 1")
        self.change(r"^share_counts = .*$", "share_counts = true")

    def change(self, line: str, to: str) -> None:
        """Edit site.toml, as the hospital would."""
        path = self.home / "site.toml"
        path.write_text(re.sub(line, to.replace("\\", r"\\"), path.read_text(), count=1, flags=re.MULTILINE))

    def approve(self, sha256: str) -> None:
        assert site_main(["approve", str(self.home), sha256, "--note", "read"]) == 0

    def start(self) -> None:
        assert site_main(["start", str(self.home), "--background"]) == 0

    def stop(self) -> None:
        assert site_main(["stop", str(self.home)]) == 0

    def kill(self) -> None:
        """All its processes at once, as a power cut would."""
        alive = [running(self.home / "state") or 0]  # its number may be another's by now, where it is not
        for pid in (*alive, *carrying("FEDMRI_SITE", str(self.home.resolve() / "site.toml"))):
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        until(lambda: running(self.home / "state") is None, 60, f"the end of {self.name}")

    def status(self) -> dict[str, Any]:
        """What `fedmri-site status --json` knows."""
        return site_status(open_home(self.home))

    def connected(self) -> bool:
        return bool(self.status()["connected"])

    def reason(self) -> str:
        return str(self.status()["sentence"])

    def log(self) -> list[dict[str, Any]]:
        """The audit log's entries."""
        path = self.home / "state" / "audit.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def events(self, event: str) -> int:
        return sum(1 for entry in self.log() if entry["event"] == event)


@dataclass
class Federation:
    """The coordinator and its hospitals, each in a folder of its own."""

    folder: Path
    hospitals: dict[str, Hospital] = field(default_factory=dict)
    address: str = ""

    @property
    def home(self) -> Path:
        return self.folder / "coordinator"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def build(
        self, sites: int = 4, patients: int = 4, *, joined: int | None = None, address: str = "", first_at: str = ""
    ) -> None:
        """Phantoms, the coordinator's home, and hospitals (the first `joined`) that have joined; nothing runs yet.

        Args:
            sites: training hospitals, beside the external one.
            patients: of each.
            joined: how many of the hospitals join; None: all.
            address: host:port of the coordinator; "": a free port of this machine.
            first_at: host:port at which the first hospital reaches it; "": as the others.
        """
        if not self.data.is_dir():
            done = [
                "phantom",
                str(self.data),
                "--sites",
                str(sites),
                "--patients",
                str(patients),
                "--external",
                "6",
                "--seed",
                "7",
            ]
            assert sim_main(done) == 0
        self.address = address or f"localhost:{free_port()}"
        ports = ["--superlink-port", str(free_port()), "--health-port", str(free_port())]
        listen = f"127.0.0.1:{self.address.rpartition(':')[2]}"
        assert server_main(["init", str(self.home), "--address", self.address, "--listen", listen, *ports]) == 0
        folders = sorted(p for p in self.data.iterdir() if p.is_dir() and p.name != "external")
        for data in folders[:joined]:
            self.join(data.name, data, first_at if data == folders[0] else "")

    def join(self, name: str, data: Path, server: str = "") -> Hospital:
        """One more hospital: init there, admit here."""
        site = Hospital(name, self.folder / "hospitals" / name, data)
        site.join(server or self.address, self.home / "ca.crt")
        key = site.home / "keys" / "site.pub"
        assert server_main(["admit", str(self.home), str(key), "--name", name]) == 0
        self.hospitals[name] = site
        return site

    def start(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # a handful of hospitals share the machine
        assert server_main(["start", str(self.home), "--background"]) == 0

    def status(self, capsys: Any = None) -> dict[str, Any]:
        """What `fedmri-server status --json` knows."""
        from server.deployment.home import open_home
        from server.deployment.status import as_json, server_status

        return as_json(server_status(open_home(self.home)))

    def supervised(self, program: str) -> int | None:
        """Process id of one of the coordinator's programs; None while it is down."""
        told = json.loads((self.home / "state" / "supervisor.json").read_text())
        pid = told["programs"][program]["pid"]
        return int(pid) if pid else None

    def online(self) -> set[str]:
        return {site["name"] for site in self.status()["sites"] if site["connection"] == "online"}

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        for site in self.hospitals.values():
            with suppress(BaseException):
                site.stop()
            with suppress(BaseException):
                site.kill()
        with suppress(BaseException):
            server_main(["stop", str(self.home)])
        for pid in carrying("FLWR_HOME", str(self.home / "flower")):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Run:
    """A run on its way, followed in a thread as `fedmri-server run` does."""

    federation: Federation
    out: Path
    code: int | None = None
    thread: threading.Thread | None = None
    began: float = 0.0

    @classmethod
    def begin(
        cls,
        federation: Federation,
        name: str,
        *settings: str,
        resume: bool = False,
        out: Path | None = None,
        external: Path | None = None,
        config: str = "demo",
        small: tuple[str, ...] = SMALL,
    ) -> "Run":
        run = cls(federation, out or federation.home / "runs" / name, began=time.monotonic())
        command = ["run", str(federation.home), "--config", config, "--external"]
        command.append(str(external or federation.data / "external"))
        command += ["--out", str(run.out), "--cache", str(federation.folder / "cache")]
        for setting in (*small, *settings):
            command += ["--set", setting]
        if resume:
            command.append("--resume")

        def work() -> None:
            try:
                run.code = server_main(command)
            except BaseException:
                run.code = -1
                raise

        run.thread = threading.Thread(target=work, daemon=True)  # one that follows a run that nobody ends must not hold us
        run.thread.start()
        return run

    def ends(self, seconds: float = 600.0) -> int:
        assert self.thread is not None
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"the run had not ended after {seconds:g} s"
        return -1 if self.code is None else self.code

    @property
    def on(self) -> bool:
        """Whether it is followed still."""
        return self.thread is not None and self.thread.is_alive()

    @property
    def rounds(self) -> list[dict[str, Any]]:
        path = self.out / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    @property
    def failures(self) -> dict[int, dict[str, str]]:
        return {r["round"]: {f["site"]: f["reason"] for f in r["failures"]} for r in self.rounds}

    @property
    def error(self) -> str:
        path = self.out / "error.json"
        return str(json.loads(path.read_text())["error"]) if path.is_file() else ""

    def at_round(self, number: int, seconds: float = 240.0) -> None:
        """Wait until a round's requests are on their way."""

        def there() -> bool:
            with suppress(OSError, ValueError, KeyError):
                status = json.loads((self.out / "status.json").read_text())
                return status["round"] >= number and status["state"] == "training"
            return False

        self.until(there, seconds, f"round {number}")

    def until(self, true: Callable[[], object], seconds: float, what: str) -> None:
        """Wait while the run is on; fail when it ends before."""

        def ended() -> bool:
            return self.thread is not None and not self.thread.is_alive()

        until(lambda: true() or ended(), seconds, what)
        assert true(), f"the run ended ({self.code}) before {what}: {self.error}"
