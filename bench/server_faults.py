"""Faults at the coordinator: its programs die, its database is lost, its disk is full, others want in."""

import io
import os
import signal
import ssl
import subprocess
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import httpx
from fault_bench import Bench, Scenario, began, stopwatch, whole
from fault_tools import PAGE, fill, full_file, small_disk

from common.deployment.flower_cli import flower_environment, program
from server.cli.main import main as server_main
from server.deployment.acts import NAME, acts_of
from server.deployment.home import open_home
from server.deployment.run_status import is_held
from server.deployment.superlink_nodes import DATABASE
from server.events.log import EVENTS
from tests.integration.deployment.federation import Federation, Hospital, Run, carrying, until


def programs_die(bench: Bench) -> None:
    """One run of two rounds: the SuperLink goes in the first, the ServerApp and the database in the second; the model stays."""
    federation, site = bench.federation, bench.sites()[1]
    reference = bench.reference
    run = bench.run("programs", "rounds=2")
    with bench.row("superlink") as row:
        began(site, run)
        took = stopwatch()
        _end_superlink(federation)
        row.seconds = took()
        run.until(lambda: len(run.rounds) >= 1, 400, "round 1")
        assert run.rounds[0]["sites"] == reference.rounds[0]["sites"], run.failures
        row.seen = "the run goes on, all replies in"
    with bench.row("serverapp") as row:
        began(site, run)
        _kill_serverapp(federation)
        took = stopwatch()
        assert run.ends() == 1
        noticed = took()
        run = _resumed(bench, run)
        began(site, run)
        row.seconds, row.seen = took(), f"failure told after {noticed:.0f} s; resumed"
    with bench.row("database") as row:
        took = stopwatch()
        for file in (federation.home / "state").glob(f"{DATABASE}*"):
            file.unlink()
        _end_superlink(federation)
        until(lambda: len(federation.online()) == len(federation.hospitals), 300, "the hospitals let in again by themselves")
        again = took()
        assert run.ends(900) == 1
        code, said = _status(federation)
        state = federation.status()["run"]
        assert (state["state"], code) in (("dead", 1), ("failed", 0)), (code, said)
        told = f"status: {state['state']} ({state.get('why') or run.error})"
        until(lambda: not is_held(run.out), 300, "the end of the ServerApp that nobody knows any more")
        run = _resumed(bench, run)
        assert run.ends(900) == 0, run.error
        whole(run, 2)
        row.seconds = took()
        row.seen = f"hospitals in again by themselves after {again:.0f} s; {told}; resumed"
    for key in ("superlink", "serverapp", "database"):
        bench.add(key, "model equal to the uninterrupted one byte for byte", holds=lambda: bench.same_model(run))


def _resumed(bench: Bench, run: Run) -> Run:
    return bench.run("", "rounds=2", resume=True, out=run.out)


def _end_superlink(federation: Federation) -> None:
    """Kill it, and wait until another one serves."""
    pid = federation.supervised("superlink")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: federation.supervised("superlink") not in (None, pid), 120, "another SuperLink")
    until(lambda: federation.status()["superlink"] == "serving", 120, "its health")


def _kill_serverapp(federation: Federation) -> None:
    for pid in carrying("FLWR_HOME", str(federation.home / "flower")):
        with suppress(OSError):
            if b"flwr-serverapp" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


def _status(federation: Federation) -> tuple[int, str]:
    """Exit code and text of `fedmri-server status`."""
    out = io.StringIO()
    with redirect_stdout(out):
        code = server_main(["status", str(federation.home)])
    return code, " ".join(out.getvalue().split())


def disk_full(bench: Bench) -> None:
    """No room for a checkpoint, then none for the event log, for the coordinator's own, for slices. Needs root."""
    federation = bench.federation
    assert bench.reference.code == 0
    out = federation.folder / "small" / "run"
    with small_disk(out.parent, 4000):  # kB: checkpoints and pictures of a whole run
        run = _no_checkpoint(bench, out)
        run = _no_events(bench, run)
        for key in ("checkpoint", "events"):
            bench.add(key, "model equal to the uninterrupted one", holds=lambda: bench.same_model(run))
    _no_acts(bench)
    with bench.row("external-cache") as row, small_disk(federation.folder / "cache", 64):
        fill(federation.folder / "cache", leave=2 * PAGE)  # room for a head, not for what follows
        run = bench.run("no-cache", "rounds=1")
        assert run.ends() == 1
        row.seen = run.error.replace(str(federation.folder / "cache"), "CACHE")
        assert "No space left on device" in row.seen, "expected: why"


def _no_checkpoint(bench: Bench, out: Path) -> Run:
    """A run whose second checkpoint finds no room."""
    site = bench.sites()[1]
    run = bench.run("", "rounds=2", out=out)
    with bench.row("checkpoint") as row:
        began(site, run)
        run.until(lambda: len(run.rounds) >= 1, 400, "round 1")
        filler = fill(out.parent, leave=12 * PAGE)
        assert run.ends() == 1
        filler.unlink()
        row.seen = run.error.replace(str(out), "RUN")
        assert "could not be written (No space left on device)" in row.seen, "expected: why"
        assert "--resume" in row.seen, "expected: what to do"
    return run


def _no_events(bench: Bench, run: Run) -> Run:
    """A run that is gone on with finds no room for what happens; another one does."""
    out = run.out
    with bench.row("events") as row:
        log, number = out / EVENTS, len(run.rounds)
        lines = log.read_bytes()
        log.write_bytes(lines[:-1] + b" " * _missing(log, 900) + b"\n")  # to the end of a page, but for some events
        with full_file(log, bench.federation.folder / "events"):
            run = bench.run("", "rounds=2", resume=True, out=out)
            assert run.ends() == 1
        row.seen = run.error.replace(str(out), "RUN")
        assert f"{EVENTS} could not be written" in row.seen, "expected: which file"
        assert "--resume" in row.seen, "expected: what to do"
        assert len(run.rounds) == number, "a round was finished whose events are not known"
        took = stopwatch()
        run = bench.run("", "rounds=2", resume=True, out=out)
        assert run.ends(900) == 0, run.error
        row.seconds = took()
        whole(run, 2)
    return run


def _no_acts(bench: Bench) -> None:
    """The coordinator's own log has no room for another line."""
    federation, home = bench.federation, open_home(bench.federation.home)
    acts, size = home.folder / NAME, (home.folder / NAME).stat().st_size
    acts_of(home).append("note", filled="")
    line = acts.stat().st_size - size
    acts_of(home).append("note", filled="x" * ((_missing(acts, 100) - line) % PAGE))  # to the end of a page
    with bench.row("acts") as row, full_file(acts, federation.folder / "acts"):
        with redirect_stderr(io.StringIO()) as errors:
            run = bench.run("unwritten", "rounds=1")
            assert run.ends(120) != 0, "it was taken"
        row.seen = " ".join(errors.getvalue().split()).replace(str(federation.home), "HOME")
        assert "No space left on device" in row.seen, "expected: why it was not done"
        assert not run.out.exists(), "a run folder was made"


def _missing(file: Path, room: int) -> int:
    """Bytes until nothing but `room` is left of the file's last page: so much more can be added to it on a full disk."""
    return (-file.stat().st_size - room) % PAGE


def desk(bench: Bench) -> None:
    """What comes to the coordinator's desk: a name that is taken, and a user of the machine without a token."""
    federation, site = bench.federation, bench.sites()[0]
    with bench.row("two-names") as row:
        other = Hospital("twin", federation.folder / "hospitals" / "twin", site.data)
        other.join(federation.address, federation.home / "ca.crt")
        with redirect_stderr(io.StringIO()) as errors:
            assert server_main(["admit", str(federation.home), str(other.home / "keys" / "site.pub"), "--name", site.name]) == 2
        row.seen = " ".join(errors.getvalue().split())
    with bench.row("local-user") as row:
        home = open_home(federation.home)
        stranger = federation.folder / "stranger"
        stranger.mkdir()
        (stranger / "config.toml").write_bytes((home.home / "config.toml").read_bytes())
        command = [program("flwr"), "ls", "--format", "json"]
        listed = subprocess.run(
            command, cwd=stranger, env=flower_environment(stranger), capture_output=True, text=True, timeout=120, check=False
        )
        assert "run-id" not in listed.stdout, listed.stdout
        with httpx.Client(verify=ssl.create_default_context(cafile=str(home.folder / "ca.crt")), trust_env=False) as client:
            calls = ("list-nodes", "list-runs", "register-node", "start-run", "stop-run")
            codes = {call: client.post(f"https://{home.superlink}/v1/control/{call}", content=b"").status_code for call in calls}
        assert set(codes.values()) == {401}, codes
        row.seen = f"HTTP 401 to {', '.join(codes)}; `flwr ls` lists nothing"


RESUMED = "the model of the uninterrupted run, byte for byte"
PROGRAMS = Scenario(
    programs_die,
    {
        "superlink": ("SuperLink kill -9 and back", f"started again; the run goes on; {RESUMED}"),
        "serverapp": ("ServerApp kill -9 and --resume", RESUMED),
        "database": (
            "SuperLink killed and its database lost, in a run",
            f"hospitals are let in again by themselves; the run is told as dead; --resume: {RESUMED}",
        ),
    },
)
DISKS = Scenario(
    disk_full,
    {
        "checkpoint": ("server's disk full at a checkpoint", f"clear error; --resume once there is room: {RESUMED}"),
        "events": ("server's disk full at the event log", f"clear error; --resume once there is room: {RESUMED}"),
        "acts": ("server's disk full at the coordinator's own log", "a run is not begun; it says why"),
        "external-cache": ("server's disk full at the external hospital's slices", "clear error before anybody trains"),
    },
    needs=("root",),
)
DESK = Scenario(
    desk,
    {
        "two-names": ("two sites with one name", "the second is refused at admission"),
        "local-user": ("a local user at the coordinator's inner port, without a token", "lists nothing, starts nothing"),
    },
)
