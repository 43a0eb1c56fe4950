"""Faults at the coordinator: its programs die, its disk is full, a name is asked for twice."""

import io
import os
import signal
import time
from contextlib import redirect_stderr, suppress
from pathlib import Path

from fault_bench import Bench, began, whole
from fault_tools import small_disk

from server.cli.main import main as server_main
from tests.integration.deployment.federation import Hospital, Run, carrying, until


def superlink_killed(bench: Bench) -> None:
    """Flower's SuperLink dies in a round."""
    federation, site = bench.federation, bench.sites()[0]
    reference = bench.reference
    run = Run.begin(federation, "superlink-killed", "rounds=3")
    began(site, run)
    pid = federation.supervised("superlink")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    at = time.monotonic()
    until(lambda: federation.supervised("superlink") not in (None, pid), 120, "another SuperLink")
    until(lambda: federation.status()["superlink"] == "serving", 120, "its health")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 3)
    same = bench.same_model(run)
    everyone = [r["sites"] for r in run.rounds] == [r["sites"] for r in reference.rounds]
    assert same is everyone
    seen = f"run complete, {'all replies in' if everyone else str(run.failures)}, model {'equal' if same else 'not equal'}"
    bench.tell("SuperLink kill -9 and back", "started again; the run goes on", seen, seconds)


def serverapp_killed(bench: Bench) -> None:
    """The ServerApp dies in a round, and the run is resumed."""
    federation, site = bench.federation, bench.sites()[0]
    assert bench.reference.code == 0
    run = Run.begin(federation, "serverapp-killed", "rounds=3")
    run.until(lambda: len(run.rounds) >= 1, 300, "the first round")
    began(site, run)
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
    assert bench.same_model(resumed)
    seen = f"failure told after {noticed:.0f} s; resumed, model equal to the uninterrupted one byte for byte"
    bench.tell("ServerApp kill -9 and --resume", "the model of the uninterrupted run, byte for byte", seen, seconds)


def server_disk_full(bench: Bench) -> None:
    """No room for a checkpoint; then there is. Needs root."""
    bench.sites()
    assert bench.reference.code == 0
    out = bench.federation.folder / "small" / "run"
    with small_disk(out.parent, 800) as grow:
        run = Run.begin(bench.federation, "", "rounds=3", out=out)
        assert run.ends() == 1
        assert "--resume" in run.error
        done, said = len(run.rounds), run.error
        grow()
        at = time.monotonic()
        resumed = Run.begin(bench.federation, "", "rounds=3", resume=True, out=out)
        assert resumed.ends() == 0, resumed.error
        seconds = time.monotonic() - at
        whole(resumed, 3)
        assert bench.same_model(resumed)
    assert done < 3
    expected, seen = "clear error; --resume once there is room", f"{said} ({done} rounds kept)"
    bench.tell("server's disk full at a checkpoint", expected, seen, seconds)


def two_of_one_name(bench: Bench) -> None:
    """A second hospital asks for a name that is taken."""
    federation, site = bench.federation, bench.sites()[0]
    other = Hospital("twin", federation.folder / "hospitals" / "twin", site.data)
    other.join(federation.address, federation.home / "ca.crt")
    with redirect_stderr(io.StringIO()) as errors:
        assert server_main(["admit", str(federation.home), str(other.home / "keys" / "site.pub"), "--name", site.name]) == 2
    seen = " ".join(errors.getvalue().split())
    bench.tell("two sites with one name", "the second is refused at admission", seen, 0.0)
