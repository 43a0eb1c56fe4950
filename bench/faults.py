"""What happens at hospitals and servers, done to a real federation: every run ends whole, or with a sentence to act on.

`make faults` runs it and writes the table of docs/results.md; with everything that Flower waits for it takes most of an hour.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from client.gate.audit_log import verify
from server.cli.main import main as server_main
from tests.integration.deployment.federation import Federation, Hospital, Proxy, Run, carrying, small_disk, until

TABLE = os.environ.get("FEDMRI_FAULTS", "")
LIES = {
    "nan": "NaN",
    "shapes": "wrong shapes",
    "names": "wrong names",
    "pickle": "a pickle in the place of an array",
    "norm": "a hundredfold update",
    "old": "an old round's reply",
    "garbage": "garbage bytes",
}

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.slow,
    pytest.mark.skipif(not TABLE, reason="the fault table takes most of an hour: make faults"),
    pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx is not installed"),
]
root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture(scope="module")
def federation(tmp_path_factory) -> Iterator[Federation]:
    from server.deployment.bundle import build_bundle

    one = Federation(tmp_path_factory.mktemp("fed"))
    try:
        one.build()
        one.start()
        sha256 = build_bundle().sha256
        for site in one.hospitals.values():
            site.approve(sha256)
            site.start()
        until(lambda: len(one.online()) == 4, 180, "four hospitals online")
        yield one
    finally:
        one.stop()


@pytest.fixture
def sites(federation) -> list[Hospital]:
    """All four, online and honest."""
    until(lambda: len(federation.online()) == 4, 240, "four hospitals online")
    return [federation.hospitals[name] for name in sorted(federation.hospitals)]


@pytest.fixture
def told(request) -> Callable[..., None]:
    """Takes a row of the table: fault, expected, seen, seconds to recover."""

    def tell(fault: str, expected: str, seen: str, seconds: float | None) -> None:
        path = Path(TABLE)
        rows = json.loads(path.read_text()) if path.is_file() else []
        rows = [row for row in rows if row["fault"] != fault]
        rows.append({"fault": fault, "expected": expected, "seen": seen, "seconds": round(seconds, 1) if seconds else seconds})
        path.write_text(json.dumps(rows, indent=2))

    return tell


@pytest.fixture(scope="module")
def reference(federation) -> Run:
    """An uninterrupted run."""
    run = Run.begin(federation, "reference", "rounds=3")
    assert run.ends() == 0, run.error
    assert [r["sites"] for r in run.rounds] == [sorted(federation.hospitals)] * 3
    return run


def whole(run: Run, rounds: int) -> None:
    """The run is complete: every round once, a report, and a checkpoint of each round that was acknowledged."""
    assert [r["round"] for r in run.rounds] == list(range(1, rounds + 1))
    assert (run.out / "report.json").is_file()
    assert (run.out / "model.safetensors").is_file()
    for r in run.rounds:
        assert (run.out / "checkpoints" / f"round-{r['round']:04d}.safetensors").is_file()


def back(run: Run, site: Hospital, after: int) -> int:
    """The first round after `after` whose mean holds the site's update."""
    found = [r["round"] for r in run.rounds if r["round"] > after and site.name in r["sites"]]
    assert found, f"{site.name} did not come back: {run.failures}"
    return found[0]


def began(site: Hospital, run: Run) -> None:
    """Wait until a request of this run has come in."""
    before = site.events("in")
    run.until(lambda: site.events("in") > before, 240, f"a request at {site.name}")


def test_site_killed_in_training(federation, sites, told) -> None:
    site = sites[1]
    run = Run.begin(federation, "site-killed", "rounds=5")
    began(site, run)
    time.sleep(2)
    site.kill()
    at = time.monotonic()
    site.start()
    until(site.connected, 240, "the site connected again")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 5)
    assert site.name in run.failures[1]
    again = back(run, site, 1)
    verify(site.home / "state" / "audit.jsonl")
    told(
        "site kill -9 in training",
        "round goes on without it, named; it comes back",
        f"round 1: {run.failures[1][site.name]}; in again from round {again}",
        seconds,
    )


def test_site_terminated_and_back(federation, sites, told) -> None:
    site = sites[2]
    run = Run.begin(federation, "site-stopped", "rounds=4")
    began(site, run)
    site.stop()
    at = time.monotonic()
    site.start()
    until(site.connected, 240, "the site connected again")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 4)
    again = back(run, site, 1)
    told("site SIGTERM and back", "back at once; the round's work is lost and named", f"in again from round {again}", seconds)


def test_superlink_killed(federation, sites, reference, told) -> None:
    run = Run.begin(federation, "superlink-killed", "rounds=3")
    began(sites[0], run)
    pid = federation.supervised("superlink")
    os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    until(lambda: federation.supervised("superlink") not in (None, pid), 120, "another SuperLink")
    until(lambda: federation.status()["superlink"] == "serving", 120, "its health")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 3)
    same = (run.out / "model.safetensors").read_bytes() == (reference.out / "model.safetensors").read_bytes()
    everyone = [r["sites"] for r in run.rounds] == [sorted(federation.hospitals)] * 3
    seen = f"run complete, {'all replies in' if everyone else str(run.failures)}, model {'equal' if same else 'not equal'}"
    told("SuperLink kill -9 and back", "started again; the run goes on", seen, seconds)
    assert same is everyone


def test_serverapp_killed_and_resumed(federation, sites, reference, told) -> None:
    run = Run.begin(federation, "serverapp-killed", "rounds=3")
    run.until(lambda: len(run.rounds) >= 1, 300, "the first round")
    began(sites[0], run)
    for pid in carrying("FLWR_HOME", str(federation.home / "flower")):
        with suppress(OSError):
            if b"flwr-serverapp" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    assert run.ends() == 1
    noticed = time.monotonic() - at
    resumed = Run.begin(federation, "", "rounds=3", resume=True, out=run.out)
    resumed.until(lambda: len(resumed.rounds) >= 2, 300, "the next round")
    seconds = time.monotonic() - at
    assert resumed.ends() == 0, resumed.error
    whole(resumed, 3)
    assert (run.out / "model.safetensors").read_bytes() == (reference.out / "model.safetensors").read_bytes()
    seen = f"failure told after {noticed:.0f} s; resumed, model equal to the uninterrupted one byte for byte"
    told("ServerApp kill -9 and --resume", "the model of the uninterrupted run, byte for byte", seen, seconds)


@root
def test_disk_full_at_a_checkpoint(federation, sites, reference, told) -> None:
    out = federation.folder / "small" / "run"
    with small_disk(out.parent, 800) as grow:
        run = Run.begin(federation, "", "rounds=3", out=out)
        assert run.ends() == 1
        assert "--resume" in run.error
        done, said = len(run.rounds), run.error
        grow()
        at = time.monotonic()
        resumed = Run.begin(federation, "", "rounds=3", resume=True, out=out)
        assert resumed.ends() == 0, resumed.error
        seconds = time.monotonic() - at
        whole(resumed, 3)
        assert (out / "model.safetensors").read_bytes() == (reference.out / "model.safetensors").read_bytes()
    assert done < 3
    told(
        "server's disk full at a checkpoint", "clear error; --resume once there is room", f"{said} ({done} rounds kept)", seconds
    )


@root
def test_disk_full_at_a_site(federation, sites, told) -> None:
    site = sites[3]
    site.stop()
    shutil.rmtree(site.home / "state")
    with small_disk(site.home / "state", 6000) as _:
        site.start()
        until(site.connected, 240, "the site connected")
        (site.home / "state" / "filler").write_bytes(b"")
        with suppress(OSError), (site.home / "state" / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        run = Run.begin(federation, "site-disk-full", "rounds=3")
        run.until(lambda: len(run.rounds) >= 1, 300, "the first round")
        (site.home / "state" / "filler").unlink()
        at = time.monotonic()
        run.until(lambda: any(site.name in r["sites"] for r in run.rounds), 400, "the site's next update")
        seconds = time.monotonic() - at
        assert run.ends() == 0, run.error
        whole(run, 3)
        assert site.name in run.failures[1]
        again = back(run, site, 1)
        verify(site.home / "state" / "audit.jsonl")
        site.stop()
    site.start()
    seen = f"round 1: {run.failures[1][site.name]}; in from round {again}"
    told("site's disk full", "nothing leaves unlogged; named; back when there is room", seen, seconds)


def test_hostile_sites(federation, sites, told) -> None:
    """Two at a time, each with a lie a round; the last round is honest."""
    lies = {sites[1].name: ["nan", "shapes", "names", "pickle", ""], sites[2].name: ["garbage", "norm", "old", "", ""]}
    for name, tricks in lies.items():
        federation.hospitals[name].trick(*tricks)
    run = Run.begin(federation, "hostile", "rounds=5", "pause_after=0")
    assert run.ends(1500) == 0, run.error
    for name in lies:
        federation.hospitals[name].trick("")
    whole(run, 5)
    for name, tricks in lies.items():
        for number, trick in enumerate(tricks, start=1):
            if trick:
                assert name in run.failures[number], trick
                assert name not in run.rounds[number - 1]["sites"]
                told(f"a site sends: {LIES[trick]}", "refused, named, weighs nothing", run.failures[number][name], None)
            else:
                assert name in run.rounds[number - 1]["sites"]
    assert not Path("/tmp/fedmri-unpickled").exists()


def test_a_straggler(federation, sites, told) -> None:
    site = sites[1]
    site.trick("sleep:150", "")
    run = Run.begin(federation, "straggler", "rounds=4", "round_timeout=90", "pause_after=0")
    at = time.monotonic()
    assert run.ends() == 0, run.error
    site.trick("")
    whole(run, 4)
    assert run.failures[1] == {site.name: "no reply within 90 s"}
    again = back(run, site, 1)
    seen = f"round 1: no reply within 90 s; in from round {again}"
    told("a straggler past the deadline", "named, weighs nothing", seen, time.monotonic() - at)


def test_a_network_cut_of_three_minutes(federation, sites, told) -> None:
    site = federation.hospitals[federation.proxied]
    slow = sites[3]
    slow.trick("sleep:15")
    proxy: Proxy = federation.proxy
    run = Run.begin(federation, "cut", "rounds=8", "pause_after=0")
    began(site, run)
    proxy.cut()
    time.sleep(180)
    proxy.mend()
    at = time.monotonic()
    cut_off = len(run.rounds)
    run.until(lambda: any(site.name in r["sites"] for r in run.rounds[cut_off:]), 400, "the site's next update")
    seconds = time.monotonic() - at
    assert run.ends(900) == 0, run.error
    slow.trick("")
    whole(run, 8)
    lost = sorted(number for number, failures in run.failures.items() if site.name in failures)
    told("network cut of 3 minutes", "rounds go on, the site named; it comes back", f"lost rounds {lost}, in again", seconds)
    assert lost
    assert site.name in run.rounds[-1]["sites"]


def test_two_sites_with_one_name(federation, sites, told, capsys) -> None:
    other = Hospital("twin", federation.folder / "hospitals" / "twin", sites[0].data)
    other.join(federation.address, federation.home / "ca.crt")
    key = str(other.home / "keys" / "site.pub")
    assert server_main(["admit", str(federation.home), key, "--name", sites[0].name]) == 2
    said = " ".join(capsys.readouterr().err.split())
    told("two sites with one name", "the second is refused at admission", said, 0.0)


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


def test_a_clock_two_hours_off(federation, sites, told, tmp_path, monkeypatch) -> None:
    site = sites[1]
    site.stop()
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    site.start()
    monkeypatch.delenv("PYTHONPATH")
    until(lambda: "clock" in site.reason(), 240, "the reason that the site tells")
    said = site.reason()
    run = Run.begin(federation, "clock", "rounds=1")
    assert run.ends() == 0, run.error
    assert site.name not in run.rounds[0]["sites"]
    site.stop()
    at = time.monotonic()
    site.start()
    until(lambda: site.name in federation.online(), 240, "the site online")
    told("a clock two hours off", "the site says so and takes no part; back when it is set", said, time.monotonic() - at)
