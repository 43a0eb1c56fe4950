"""docs/first-run.md, typed as it stands: from empty folders, as a user who has nothing yet, without `[connection] weights`."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cli.main import main as site_main
from client.deployment.home import open_home
from common.run_folder import MODEL_NAME
from server.cli.main import main as server_main
from simulation.cli import main as sim_main
from tests.integration.deployment.federation import ROOT, SMALL, Federation, Hospital, Run, free_port, until

pytestmark = [pytest.mark.deployment, pytest.mark.slow]
PAGE = (ROOT / "docs" / "first-run.md").read_text()
SITES = ("hospital-a", "hospital-b")
MAINS = {"fedmri-server": server_main, "fedmri-site": site_main}
INSTALL = ["git clone REPOSITORY /opt/fedmri", "make -C /opt/fedmri setup"]


def commands(side: str) -> list[str]:
    """What the page tells one side to type, in its order."""
    blocks = re.findall(rf"^```sh {side}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def test_six_commands_a_side() -> None:
    assert all(len(commands(side)) <= 6 and commands(side)[:2] == INSTALL for side in ("coordinator", "hospital"))
    assert not any(sign in line for side in ("coordinator", "hospital", "run") for line in commands(side) for sign in "&;|")


class Walk:
    """Types the page's commands, its names and folders put in place."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.federation, self.capsys = Federation(folder), capsys
        self.federation.address = f"localhost:{free_port()}"
        self.names = {
            "fedmri.example.org:8443": self.federation.address,
            "/var/lib/fedmri": str(self.federation.home),
            "/data/hospital-x": str(self.federation.data / "external"),
        }

    def type(self, line: str, names: dict[str, str], *more: str) -> str:
        """One command, with what a crowded test machine needs besides; returns what it printed."""
        words = [put(word, self.names | names) for word in shlex.split(line)]
        code = MAINS[words[0]]([*words[1:], *more])
        told = self.capsys.readouterr()
        assert code == 0, f"{line}: {told.out}{told.err}"
        return told.out

    def coordinator(self, command: str, names: dict[str, str], *more: str) -> str:
        [line] = [line for line in commands("coordinator") if f" {command} " in line]
        return self.type(line, names, *more)

    def hospital(self, name: str) -> Hospital:
        """From the invitation to a running site, by the page."""
        folder = self.federation.folder / "hospitals" / name
        names = {"hospital-a": name, "/var/lib/fedmri-site": str(folder), "/data/brains": str(self.federation.data / name)}
        self.coordinator("invite", names)
        names["hospital-a.txt"] = str(self.federation.home / "invitations" / f"{name}.txt")
        for line in commands("hospital")[2:]:
            told = self.type(line, names, *(small() if " doctor " in line else ()))
            if " join " in line:
                names["LINE"] = next(row for row in told.splitlines() if row.startswith("ecdsa-sha2-"))
                names["HASH"] = re.findall(r"approve \S+ ([0-9a-f]{64})", told)[0]
                self.coordinator("admit", names)
        self.federation.hospitals[name] = Hospital(name, folder, self.federation.data / name)
        return self.federation.hospitals[name]


def put(word: str, names: dict[str, str]) -> str:
    """A word of the page, its name or folder put in place: a folder also where something stands in it."""
    for name, is_here in names.items():
        if word == name or (name.startswith("/") and word.startswith(f"{name}/")):
            return is_here + word[len(name) :]
    return word


def small() -> list[str]:
    """The page's configuration, smaller still."""
    return [word for setting in (*SMALL, "rounds=1", "holdout=0") for word in ("--set", setting)]


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Walk]:
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # all hospitals share the machine
    monkeypatch.delenv("FEDMRI_CACHE", raising=False)
    walk = Walk(tmp_path, capsys)
    made = ["--sites", "2", "--patients", "3", "--external", "6", "--seed", "7"]
    assert sim_main(["phantom", str(walk.federation.data), *made]) == 0
    yield walk
    walk.federation.stop()


def test_the_first_run_works_at_the_first_attempt(walk: Walk) -> None:
    federation = walk.federation
    ports = ["--superlink-port", str(free_port()), "--health-port", str(free_port())]
    walk.coordinator("init", {}, "--listen", f"127.0.0.1:{federation.address.rpartition(':')[2]}", *ports)
    walk.coordinator("start", {})
    sites = [walk.hospital(name) for name in SITES]
    assert all(open_home(site.home).config.connection.weights == "" for site in sites)
    until(lambda: federation.online() == set(SITES), 90, "both hospitals online")
    run_it, hand_it_out = commands("run")
    walk.type(run_it, {}, *small())
    run = Run(federation, federation.home / "runs" / "first")
    assert [(line["attempts"], line["failures"]) for line in run.rounds] == [(1, [])]
    assert json.loads((run.out / "report.json").read_text())["external"]["n"] == 6
    assert "first/1.0.0 is kept at hospital-a, hospital-b." in walk.type(hand_it_out, {})
    for site in sites:
        assert site.events("refused") == 0
        names = {"/var/lib/fedmri-site": str(site.home), "/data/brains": str(site.data)}
        models, predict = commands("after")
        assert "first/1.0.0" in walk.type(models, names)
        assert "Probabilit" in walk.type(predict, names)
        assert (site.home / "models" / "first" / "1.0.0" / MODEL_NAME).read_bytes() == (run.out / MODEL_NAME).read_bytes()
