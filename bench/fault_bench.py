"""What every fault of `faults.py` needs: the federation it is done to, the table of what was seen, and what a whole run is."""

import json
import os
import shutil
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_clock import clock_of, moving_clock
from fault_tools import Proxy, trick

from common.files import locked, write_atomic
from server.cli.main import main as server_main
from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import ROOT, Federation, Hospital, Run, free_port, until

SITES = 4
# Rounds alone: nobody is compared with the external hospital before, and nothing is calibrated after.
ROUNDS_ONLY = ("twins.with_external=keep", "evaluation.holdout=0", "evaluation.modality_subsets=false")


@dataclass(frozen=True)
class Scenario:
    """Faults that share a federation, and mostly one run.

    Attributes:
        work: does them.
        rows: by a key that `work` uses, the row's fault and what is expected of it.
        needs: "root" (a small disk is mounted), "cc" (a clock is moved by a small library, which a C compiler makes).
        late: a hospital has not approved the code when it begins.
    """

    work: Callable[["Bench"], None]
    rows: Mapping[str, tuple[str, str]]
    needs: tuple[str, ...] = ()
    late: bool = False


@dataclass
class Row:
    """What is seen of one fault, while it is looked at."""

    seen: str = ""
    seconds: float | None = None  # until the site, or the run, is at work again
    passed: bool | None = None  # None: not told yet


@dataclass
class Table:
    """The rows, each in the file as soon as it is there; one of the same fault is replaced.

    Attributes:
        file: JSON.
        commit: of the checkout, with "+" where it has changes.
    """

    file: Path
    commit: str

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds."""
        found = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        return found if isinstance(found, dict) and "rows" in found else {"rows": []}

    def tell(self, fault: str, expected: str, row: Row) -> None:
        """Write one row."""
        passed = bool(row.passed)
        seconds = round(row.seconds, 1) if row.seconds is not None else None
        new = {
            "fault": fault,
            "expected": expected,
            "seen": row.seen,
            "seconds": seconds,
            "passed": passed,
            "commit": self.commit,
        }
        with locked(self.file.with_name(f".{self.file.name}.lock")):  # two processes write rows
            content = self.content
            rows = [each for each in content["rows"] if each["fault"] != fault]
            self._write(content | {"rows": [*rows, new]})
        print(f"{'passed' if passed else 'FAILED'}: {fault}: {row.seen}", flush=True)

    def whole_run(self, seconds: float) -> None:
        """All faults were done, one after the other, by one command."""
        self._write(
            self.content | {"whole_run": {"commit": self.commit, "minutes": round(seconds / 60, 1), "cores": os.cpu_count()}}
        )

    def holds(self, scenario: Scenario) -> bool:
        """Whether all rows of a scenario are there and passed, at this commit."""
        passed = {row["fault"] for row in self.content["rows"] if row["passed"] and row["commit"] == self.commit}
        return {fault for fault, _ in scenario.rows.values()} <= passed

    def _write(self, content: dict[str, Any]) -> None:
        write_atomic(self.file, (json.dumps(content, indent=2) + "\n").encode())


def commit() -> str:
    """Of the checkout; with "+" where it has changes, but for the results themselves."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/faults.json", ":!docs")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


class Bench:
    """The federation that faults are done to, made anew after a scenario that did not end as expected.

    Args:
        folder: for all that is made.
        table: of what is seen.
    """

    def __init__(self, folder: Path, table: Table) -> None:
        self.folder, self.table = folder, table
        self.federation, self.proxy = Federation(folder / "none"), Proxy(0)
        self.count = 0
        self.scenario = Scenario(lambda bench: None, {})
        self.rows: dict[str, Row] = {}
        self._reference: Run | None = None

    def begin(self, *, late: bool = False) -> None:
        """Another federation: four hospitals online, the first through the proxy; `late`: that one has not approved the code."""
        self.end()
        self.count += 1
        port = free_port()
        self.federation, self.proxy = Federation(self.folder / f"federation-{self.count}"), Proxy(port)
        if self.count > 1:
            shutil.copytree(self.folder / "data", self.federation.data)
        self.federation.build(address=f"localhost:{port}", first_at=f"localhost:{self.proxy.port}")
        if self.count == 1:
            shutil.copytree(self.federation.data, self.folder / "data")
        self.start_server()
        sha256 = build_bundle().sha256
        for site in list(self.federation.hospitals.values())[1 if late else 0 :]:
            site.approve(sha256)
        for site in self.federation.hospitals.values():
            self.start(site)
        self.sites()

    def end(self) -> None:
        """End all processes of the federation."""
        self.proxy.close()
        if self.federation.home.is_dir():
            self.federation.stop()

    def start_server(self) -> None:
        """The coordinator's service, whose clock can be moved."""
        with moving_clock(clock_of(self.federation.home)):
            self.federation.start()

    def start(self, site: Hospital) -> None:
        """A hospital, with a slice cache of its own and a clock that can be moved."""
        with moving_clock(clock_of(site.home), FEDMRI_CACHE=str(site.home / "cache")):
            site.start()

    def sites(self) -> list[Hospital]:
        """All four, online and honest."""
        until(lambda: len(self.federation.online()) == SITES, 400, "four hospitals online")
        return [self.federation.hospitals[name] for name in sorted(self.federation.hospitals)]

    def run(self, name: str, *settings: str, **more: Any) -> Run:
        """A run of rounds alone."""
        return Run.begin(self.federation, name, *ROUNDS_ONLY, *settings, **more)

    def play(self, scenario: Scenario) -> list[str]:
        """Do the faults of a scenario; whatever comes of it is told. Those that did not end as expected."""
        self.scenario, self.rows = scenario, {key: Row() for key in scenario.rows}
        why = "the scenario ended before it was looked at"
        try:
            scenario.work(self)
        except Exception as error:  # the next fault is done all the same
            traceback.print_exc()
            why = _said(error)
            for key in [key for key, row in self.rows.items() if row.passed]:
                self.add(key, f"then: {why}", holds=lambda: False)
        for key, row in self.rows.items():
            if row.passed is None:
                row.seen = f"not reached: {why}"
                self._tell(key, row, passed=False)
        return [fault for key, (fault, _) in scenario.rows.items() if not self.rows[key].passed]

    @contextmanager
    def row(self, key: str) -> Iterator[Row]:
        """One row: what the block leaves in it is told; an assertion that fails in it is told too, and the row has failed."""
        row = self.rows[key]
        try:
            yield row
        except Exception as error:
            traceback.print_exc()
            row.seen = "; ".join(part for part in (row.seen, _said(error)) if part)
            self._tell(key, row, passed=False)
        else:
            self._tell(key, row, passed=True)

    def add(self, key: str, what: str, *, holds: Callable[[], bool]) -> None:
        """More of a row that was told: what is seen once the run is over. One that has failed stays so."""
        row = self.rows[key]
        if not row.passed:
            return
        try:
            row.passed = holds()
        except (OSError, AssertionError):
            row.passed = False
        row.seen = "; ".join(part for part in (row.seen, what if row.passed else f"NOT: {what}") if part)
        self.table.tell(*self.scenario.rows[key], row)

    def _tell(self, key: str, row: Row, *, passed: bool) -> None:
        row.passed = passed
        self.table.tell(*self.scenario.rows[key], row)

    @property
    def reference(self) -> Run:
        """An uninterrupted run of two rounds."""
        if self._reference is None:
            run = self.run("reference", "rounds=2")
            assert run.ends(900) == 0, run.error
            self.set_reference(run)
        assert self._reference
        return self._reference

    def set_reference(self, run: Run) -> None:
        """Take a run as the uninterrupted one."""
        assert [r["sites"] for r in run.rounds] == [sorted(self.federation.hospitals)] * 2, run.failures
        self._reference = run

    def same_model(self, run: Run) -> bool:
        """Whether a run ended in the uninterrupted one's model, byte for byte."""
        return (run.out / "model.safetensors").read_bytes() == (self.reference.out / "model.safetensors").read_bytes()

    def patience(self) -> int:
        """Seconds within which a hospital that is well has answered, by what the last rounds took on this machine."""
        files = sorted(self.federation.home.glob("runs/*/rounds.jsonl"), key=lambda file: file.stat().st_mtime)
        took = [json.loads(line)["seconds"] for file in files for line in file.read_text().splitlines()]
        return int(min(500, max(90, 3 * statistics.median(took[-3:])))) if took else 180

    def cancel(self, run: Run) -> None:
        """Stop a run that goes on until it is told."""
        server_main(["cancel", str(self.federation.home)])
        run.ends(300)

    @contextmanager
    def tricked(self, lies: Mapping[str, list[str]]) -> Iterator[None]:
        """Gates that answer falsely meanwhile: by hospital, a lie a round."""
        try:
            for name, tricks in lies.items():
                trick(self.federation.hospitals[name], *tricks)
            yield
        finally:
            for name in lies:
                trick(self.federation.hospitals[name], "")


def _said(error: BaseException) -> str:
    """An error in a line; of an assertion without words its own source."""
    words = str(error) or str(traceback.extract_tb(error.__traceback__)[-1].line)
    return f"{type(error).__name__}: {' '.join(words.split())[:400]}"


def whole(run: Run, rounds: int) -> None:
    """The run is complete: every round once, a report, and a checkpoint of each round that was acknowledged."""
    assert [r["round"] for r in run.rounds] == list(range(1, rounds + 1))
    assert (run.out / "report.json").is_file()
    assert (run.out / "model.safetensors").is_file()
    kept(run)


def kept(run: Run) -> None:
    """As far as a run came: every round once, and a checkpoint of each."""
    assert [r["round"] for r in run.rounds] == list(range(1, len(run.rounds) + 1))
    for r in run.rounds:
        assert (run.out / "checkpoints" / f"round-{r['round']:04d}.safetensors").is_file()


def back(run: Run, site: Hospital, after: int) -> int:
    """The first round after `after` whose mean holds the site's update."""
    found = [r["round"] for r in run.rounds if r["round"] > after and site.name in r["sites"]]
    assert found, f"{site.name} did not come back: {run.failures}"
    return int(found[0])


def wait_back(run: Run, site: Hospital, after: int, seconds: float = 500) -> int:
    """Wait for that round."""
    run.until(lambda: any(r["round"] > after and site.name in r["sites"] for r in run.rounds), seconds, f"{site.name} in a round")
    return back(run, site, after)


def began(site: Hospital, run: Run) -> int:
    """Wait until another request of this run has come in; returns the round that is on."""
    before = site.events("asked")
    run.until(lambda: site.events("asked") > before, 300, f"a request at {site.name}")
    return len(run.rounds) + 1


def events(run: Run) -> list[dict[str, Any]]:
    """Whole lines of the run's log."""
    path = run.out / "events.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def asked(run: Run, number: int) -> dict[str, int]:
    """How often each site was asked to train in a round."""
    lines = [e for e in events(run) if e["event"] == "asked" and e["what"] == "train" and e["round"] == number]
    return {name: sum(e["site"] == name for e in lines) for name in sorted({e["site"] for e in lines})}


def stopwatch() -> Callable[[], float]:
    """Seconds since now."""
    at = time.monotonic()
    return lambda: time.monotonic() - at
