"""The table of faults: what fails is told as failed, what was not looked at too, and each row is kept when it is there."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def fault_bench():
    sys.path.insert(0, str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module("fault_bench")
    sys.path.remove(str(BENCH))
    for name in {"fault_bench", "fault_tools", "fault_clock"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def bench(fault_bench, tmp_path):
    made = fault_bench.Bench(tmp_path / "work", fault_bench.Table(tmp_path / "faults.json", "abc"))
    yield made
    made.proxy.close()


def rows(bench) -> dict[str, tuple[bool, str]]:
    return {row["fault"]: (row["passed"], row["seen"]) for row in json.loads(bench.table.file.read_text())["rows"]}


def scenario(fault_bench, work, *keys: str):
    return fault_bench.Scenario(work, {key: (f"the {key}", "it holds") for key in keys})


def test_a_row_that_fails_is_told_and_the_next_is_looked_at(fault_bench, bench) -> None:
    def work(bench) -> None:
        with bench.row("one") as row:
            row.seen = "half"
            raise AssertionError("no seconds")
        with bench.row("two") as row:
            row.seen = "well"

    failed = bench.play(scenario(fault_bench, work, "one", "two"))
    assert failed == ["the one"]
    assert rows(bench) == {"the one": (False, "half; AssertionError: no seconds"), "the two": (True, "well")}


def test_what_was_not_reached_has_failed_and_so_has_what_was_to_be_looked_at_again(fault_bench, bench) -> None:
    def work(bench) -> None:
        with bench.row("one") as row:
            row.seen = "well"
        raise RuntimeError("the run ended")

    assert bench.play(scenario(fault_bench, work, "one", "two")) == ["the one", "the two"]
    assert rows(bench)["the two"] == (False, "not reached: RuntimeError: the run ended")
    assert rows(bench)["the one"] == (False, "well; NOT: then: RuntimeError: the run ended")


def test_more_is_seen_of_a_row_that_was_told(fault_bench, bench) -> None:
    def work(bench) -> None:
        for key in ("good", "bad"):
            with bench.row(key) as row:
                row.seen = "so far"
        bench.add("good", "equal", holds=lambda: True)
        bench.add("bad", "equal", holds=lambda: False)
        bench.add("bad", "whole", holds=lambda: True)

    assert bench.play(scenario(fault_bench, work, "good", "bad")) == ["the bad"]
    assert rows(bench) == {"the good": (True, "so far; equal"), "the bad": (False, "so far; NOT: equal")}


def test_rows_are_replaced_and_only_those_of_this_commit_count_as_done(fault_bench, bench, tmp_path) -> None:
    def work(bench) -> None:
        with bench.row("one") as row:
            row.seen = "well"

    one = scenario(fault_bench, work, "one")
    assert bench.play(one) == bench.play(one) == []
    assert len(json.loads(bench.table.file.read_text())["rows"]) == 1
    assert bench.table.holds(one)
    assert not fault_bench.Table(bench.table.file, "other").holds(one)


def test_whoever_reads_the_first_line_alone_gets_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head` that has seen enough
    shown = [sys.executable, str(BENCH / "faults.py"), str(BENCH / "faults.json"), "--show"]
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(shown, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
