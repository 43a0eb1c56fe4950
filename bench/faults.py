"""What happens at hospitals and servers, done to a real federation: every run ends whole, or with a sentence to act on.

    python bench/faults.py bench/faults.json
    python bench/faults.py bench/faults.json --only lies clocks
    python bench/faults.py bench/faults.json --rest

A coordinator and four hospitals on the loopback, over TLS and nginx, driven by the commands that people type. Faults that can
share a run do; each gives a row of the table in docs/results.md: what was done, what is expected, what was seen, seconds to
recover, whether it ended as expected. A row is in the file as soon as it is there. Where one ends otherwise it is told, the
others go on in a federation that is made anew, and the exit code is 1. It takes about an hour; two federations are at it side by
side, each with its own part of the faults.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the harness of the deployment tests lies there

from absence_faults import ABSENCES
from clock_faults import CLOCKS
from fault_bench import Bench, Scenario, Table, commit
from fault_clock import compiler, remove_library
from lie_faults import LYING
from server_faults import DESK, DISKS, PROGRAMS
from site_faults import DATA, FIRST, POLICIES, SITE_DISKS
from study_faults import CONSOLE, EXTERNAL, STUDIES

from common.cli import while_read

STREAMS: tuple[dict[str, Scenario], ...] = (  # side by side, each in a federation of its own: much of the time is waiting
    {
        "first": FIRST,  # first: the others begin with four hospitals that have approved
        "console": CONSOLE,  # its run is the undisturbed one that the next two compare with
        "programs": PROGRAMS,
        "disks": DISKS,
        "desk": DESK,
        "external": EXTERNAL,
        "policies": POLICIES,
        "data": DATA,
    },
    {
        "absences": ABSENCES,
        "clocks": CLOCKS,
        "lies": LYING,
        "site-disks": SITE_DISKS,
        "studies": STUDIES,
    },
)
SCENARIOS = {name: scenario for stream in STREAMS for name, scenario in stream.items()}
LACKING = {"root": "mounting a small disk needs root", "cc": "moving a clock needs a C compiler"}


def main() -> int:
    """Do the faults one after the other; 0 where all ended as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("table", type=Path, metavar="FILE", help="JSON; rows of the same fault are replaced")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    chosen.add_argument("--show", action="store_true", help="do nothing; print what FILE holds as the table of docs/results.md")
    chosen.add_argument("--rest", action="store_true", help="leave out what FILE has as passed at this commit")
    arguments = parser.parse_args()
    if arguments.show:
        print(shown(Table(arguments.table, "")))
        return 0
    if not shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        parser.error("nginx is not installed")
    table = Table(arguments.table, commit())
    names = [name for name in SCENARIOS if not arguments.only or name in arguments.only]
    names = [name for name in names if not (arguments.rest and table.holds(SCENARIOS[name]))]
    signal.signal(signal.SIGTERM, _interrupted)
    began = time.monotonic()
    failed = side_by_side(table, [[name for name in stream if name in names] for stream in STREAMS])
    seconds = time.monotonic() - began
    if names == list(SCENARIOS):
        table.whole_run(seconds)
    print(
        f"{seconds / 60:.0f} minutes. "
        + (f"Ended otherwise than expected: {'; '.join(failed)}" if failed else "All ended as expected.")
    )
    return 1 if failed else 0


def shown(table: Table) -> str:
    """The rows that are there, in the order of the faults, without what is another one on every machine."""
    rows = {row["fault"]: row for row in table.content["rows"]}
    lines = ["| fault | expected | seen | s | commit |", "|---|---|---|---|---|"]
    for fault in (fault for scenario in SCENARIOS.values() for fault, _ in scenario.rows.values() if fault in rows):
        row = rows[fault]
        seen = re.sub(r"localhost:\d+", "SERVER", row["seen"]).replace("|", "\\|")
        seen = re.sub(r"SHA256:[A-Za-z0-9+/]{20,}", "SHA256:...", re.sub(r"/\S+/fedmri-faults-\S+", "PATH", seen))
        seconds = "" if row["seconds"] is None else row["seconds"]
        told = seen if row["passed"] else f"**NOT AS EXPECTED.** {seen}"
        lines.append(f"| {fault} | {row['expected']} | {told} | {seconds} | {row['commit']} |")
    return "\n".join(lines)


def side_by_side(table: Table, parts: list[list[str]]) -> list[str]:
    """Do the parts at the same time, all but one of them in processes of their own; the faults that did not end as expected."""
    mine, *others = [part for part in parts if part] or [[]]
    command = [sys.executable, __file__, str(table.file), "--only"]
    processes = {" ".join(part): subprocess.Popen([*command, *part]) for part in others}
    try:
        failed = alone(table, mine)
        failed += [f"among {part} (see above)" for part, process in processes.items() if process.wait()]
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()  # it ends its own federation
                process.wait()
    return failed


def alone(table: Table, names: list[str]) -> list[str]:
    """Do scenarios one after the other, in this process."""
    with tempfile.TemporaryDirectory(prefix="fedmri-faults-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), table)
        try:
            return play(bench, names)
        finally:
            bench.end()
            remove_library()


def play(bench: Bench, names: list[str]) -> list[str]:
    """Do the scenarios; the faults of those that did not end as expected."""
    failed, fresh = [], True
    for name in names:
        scenario = SCENARIOS[name]
        if lacking := [LACKING[need] for need in scenario.needs if not _has(need)]:
            print(f"{name}: left out, {'; '.join(lacking)}", flush=True)
            failed += [f"{fault} (left out)" for fault, _ in scenario.rows.values()]
            continue
        began = time.monotonic()
        try:
            if fresh or scenario.late:
                bench.begin(late=scenario.late)
        except Exception:
            print(f"{name}: no federation could be set up\n{traceback.format_exc()}", flush=True)
            failed += [f"{fault} (no federation)" for fault, _ in scenario.rows.values()]
            continue
        bad = bench.play(scenario)
        fresh = bool(bad)
        failed += bad
        print(f"== {name}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return failed


def _has(need: str) -> bool:
    return os.geteuid() == 0 if need == "root" else compiler() is not None


def _interrupted(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends everything in order, as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(while_read(main))
