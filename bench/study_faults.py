"""Two studies at once, an external hospital that trains, and what the coordinator reads meanwhile."""

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from fault_bench import ROUNDS_ONLY, Bench, Scenario, stopwatch, whole
from fault_clock import clock_of, moving_clock

from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import ROOT, SMALL, Federation, Run, free_port, until


def console(bench: Bench) -> None:
    """Two runs are asked for at once; the one that is taken goes on, its output in a file; status is read meanwhile."""
    federation = bench.federation
    names = ("one", "two")
    logs = {name: federation.folder / f"{name}.log" for name in names}
    outs = {name: federation.home / "runs" / name for name in names}
    both = {name: _command(federation, outs[name], logs[name]) for name in names}
    try:
        with bench.row("two-runs") as row:
            until(lambda: any(process.poll() is not None for process in both.values()), 300, "the refusal of one of the two")
            refused = next(name for name in names if both[name].poll() is not None)
            taken = next(name for name in names if name != refused)
            assert both[refused].returncode == 1
            said = logs[refused].read_text().strip().splitlines()[-1]
            assert "is being submitted at this moment" in said or "is on already" in said, said
            assert not outs[refused].exists()
            row.seen = said
        with bench.row("run-while-on") as row:
            until(lambda: "is on its way" in logs[taken].read_text(), 300, "the run that was taken on")
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            third = _command(federation, outs[refused], logs[refused])
            both["third"] = third
            assert third.wait(300) == 1
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            row.seen = f"{logs[refused].read_text().strip().splitlines()[-1]} ({seconds:.1f} s of processor time)"
            assert "is on already" in row.seen
            assert seconds < 13
        with bench.row("log-file") as row:
            until(lambda: "Round 1:" in logs[taken].read_text() or both[taken].poll() is not None, 600, "round 1 in the log")
            assert both[taken].poll() is None, "the run had ended before its first round stood in the log"
            row.seen = (
                next(line for line in logs[taken].read_text().splitlines() if line.startswith("Round 1:"))
                + " (while the run was on)"
            )
        with bench.row("status") as row:
            row.seen = _status_in_pipes(federation)
        assert both[taken].wait(1200) == 0, logs[taken].read_text()
        run = Run(federation, outs[taken], code=0)
        whole(run, 2)
        bench.add("two-runs", "the other ended whole", holds=lambda: True)
        bench.set_reference(run)
    finally:
        for process in both.values():
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def _command(federation: Federation, out: Path, log: Path) -> "subprocess.Popen[bytes]":
    """`fedmri-server run` with its output in a file."""
    command = [sys.executable, "-m", "server.cli.main", "run", str(federation.home), "--config", "demo"]
    command += ["--external", str(federation.data / "external"), "--out", str(out), "--cache", str(federation.folder / "cache")]
    command += [word for setting in (*SMALL, *ROUNDS_ONLY, "rounds=2") for word in ("--set", setting)]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def _status_in_pipes(federation: Federation) -> str:
    """`fedmri-server status` at 80 columns, into a pipe, and into one that is closed after a line."""
    command = [sys.executable, "-m", "server.cli.main", "status", str(federation.home)]
    narrow = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=narrow, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    for name in federation.hospitals:
        assert any(re.search(rf"\b{name}\b", line) for line in lines), done.stdout
    assert "online" in done.stdout, done.stdout
    shell = f"{' '.join(command)} | head -1"
    head = subprocess.run(["bash", "-c", shell], cwd=ROOT, env=narrow, capture_output=True, text=True, check=False)
    assert head.stdout.count("\n") == 1, head.stdout
    assert "Traceback" not in head.stderr + done.stderr, head.stderr
    assert "Error" not in head.stderr, head.stderr
    return f"names whole, {len(lines)} lines into a pipe, `| head -1` ends without a word"


def two_studies(bench: Bench) -> None:
    """Another coordinator with a study of its own, at two of the same hospitals: the same patients, the same slice cache."""
    first = bench.federation
    sites = bench.sites()[:2]
    other = Federation(first.folder / "other")
    other.folder.mkdir()
    other.data.symlink_to(first.data)
    try:
        other.build(joined=2, address=f"localhost:{free_port()}")
        with moving_clock(clock_of(other.home)):
            other.start()
        sha256 = build_bundle().sha256
        for site in other.hospitals.values():
            site.approve(sha256)
            cache = first.hospitals[site.name].home / "cache"
            with moving_clock(clock_of(site.home), FEDMRI_CACHE=str(cache)):
                site.start()
        until(lambda: len(other.online()) == 2, 300, "the other study's hospitals online")
        with bench.row("two-studies") as row:
            before = {site.name: len(site.log()) for site in sites}
            view = ("data.field_of_view=104",)  # slices that no cache has yet: both build them at once
            runs = [bench.run("study-one", "rounds=1", *view), Run.begin(other, "study-two", *ROUNDS_ONLY, "rounds=1", *view)]
            took = stopwatch()
            for run in runs:
                assert run.ends(900) == 0, run.error
                whole(run, 1)
            assert runs[0].rounds[0]["sites"] == sorted(first.hospitals), runs[0].failures
            assert runs[1].rounds[0]["sites"] == sorted(other.hospitals), runs[1].failures
            for site in sites:
                ours, theirs = site.log()[before[site.name] :], other.hospitals[site.name].log()
                assert {entry["run"] for entry in ours if "run" in entry}.isdisjoint(
                    {entry["run"] for entry in theirs if "run" in entry}
                )
                assert [entry["event"] for entry in ours] == [entry["event"] for entry in theirs] == ["asked", "answered"]
            row.seen = f"both whole after {took():.0f} s, each in an audit log of its own"
    finally:
        other.stop()


def external_trains(bench: Bench) -> None:
    """The external hospital is one that trains: by its name, and by the content of one patient's images under other names."""
    federation, site = bench.federation, bench.sites()[0]
    with bench.row("by-name") as row:
        run = bench.run("same-name", "rounds=1", external=site.data)
        assert run.ends() == 1
        assert "is the external hospital of this run" in run.error, run.error
        assert not run.rounds
        row.seen = run.error
    with bench.row("by-content") as row:
        far = federation.folder / "elsewhere" / "far"
        shutil.copytree(federation.data / "external", far)
        patient = next(p for p in sorted(site.data.iterdir()) if p.name.startswith("sub-"))
        for file in patient.glob("**/*.nii.gz"):
            to = far / "sub-new" / "anat" / file.name.replace(patient.name, "sub-new")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
        run = bench.run("same-patient", "rounds=1", "twins.with_external=refuse", external=far)
        assert run.ends() == 1
        assert f"{site.name}: patients of this hospital are external ones of the run" in run.error, run.error
        assert "sub-" not in run.error
        assert site.log()[-1]["rule"] == "external-patients", site.log()[-1]
        assert not run.rounds
        row.seen = run.error


CONSOLE = Scenario(
    console,
    {
        "two-runs": ("two runs are asked for at the same moment", "one is taken, the other refused, and its folder not made"),
        "run-while-on": ("another run is asked for while one is on", "refused, in less than 13 s of processor time"),
        "log-file": ("a run whose output goes into a file", "each round stands there when it is over"),
        "status": ("status at 80 columns, into a pipe, into `head`", "names stay whole; it writes; no traceback"),
    },
)
STUDIES = Scenario(
    two_studies,
    {
        "two-studies": (
            "two studies at once: two coordinators, the same hospitals, patients and slice cache",
            "both end whole; each has an audit log of its own",
        ),
    },
)
EXTERNAL = Scenario(
    external_trains,
    {
        "by-name": ("the external hospital trains: by name", "the run is refused before anybody trains"),
        "by-content": (
            "the external hospital has a training patient: by content, other names",
            "refused before anybody trains; nobody named",
        ),
    },
)
