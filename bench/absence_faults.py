"""Hospitals that are away in a round: late, stopped, cut off, killed, ended. One run, which goes on without them."""

import time

from fault_bench import Bench, Scenario, began, kept, stopwatch, wait_back
from fault_tools import standing_still

from client.gate.audit_log import verify
from tests.integration.deployment.federation import Hospital, Run, until

CUT, STILL = 180, 60  # seconds


def absences(bench: Bench) -> None:
    """In round 1 one hospital is late, one stands still, one is cut off; later one is killed and one ended. The third stays."""
    cut, late, steady, still = bench.sites()
    deadline = bench.patience()
    with bench.tricked({late.name: [f"sleep:{deadline + 60}", ""], steady.name: ["sleep:12"]}):
        run = bench.run("absences", "rounds=60", f"round_timeout={deadline}", "pause_after=0", "min_sites=1")
        try:
            began(still, run)
            since_cut = stopwatch()
            bench.proxy.cut()
            with standing_still(still):
                time.sleep(STILL)
            _went_on(bench, run, still)
            lost = began(still, run)
            time.sleep(2)
            still.kill()
            since_killed = stopwatch()
            bench.start(still)
            time.sleep(max(0.0, CUT - since_cut()))
            bench.proxy.mend()
            _mended(bench, run, cut)
            _was_late(bench, run, late, deadline)
            _ended(bench, run, late)
            with bench.row("killed") as row:
                row.seen = _lost_and_back(run, still, lost)
                row.seconds = since_killed()
                verify(still.home / "state" / "audit.jsonl")
        finally:
            bench.proxy.mend()
            bench.cancel(run)
    kept(run)


def _went_on(bench: Bench, run: Run, site: Hospital) -> None:
    """The site's processes go on."""
    with bench.row("stopped") as row:
        took = stopwatch()
        run.until(lambda: len(run.rounds) >= 1, 300, "round 1")
        first = run.failures[1].get(site.name, "its answer came in time")
        again = wait_back(run, site, 0)
        row.seconds, row.seen = took(), f"round 1: {first}; in from round {again}"
        verify(site.home / "state" / "audit.jsonl")


def _mended(bench: Bench, run: Run, site: Hospital) -> None:
    """The network is there again."""
    with bench.row("cut") as row:
        took = stopwatch()
        again = wait_back(run, site, len(run.rounds))
        row.seconds = took()
        gone = [r["round"] for r in run.rounds if r["round"] < again and site.name not in r["sites"]]
        assert any(site.name in run.failures[number] for number in gone), run.failures
        row.seen = f"rounds {gone[0]} to {gone[-1]} went on without it, in again from round {again}"


def _was_late(bench: Bench, run: Run, site: Hospital, deadline: int) -> None:
    with bench.row("late") as row:
        row.seen = _lost_and_back(run, site, 1)
        assert run.failures[1][site.name] == f"no reply within {deadline} s", run.failures[1]


def _ended(bench: Bench, run: Run, site: Hospital) -> None:
    """A hospital that stops FedMRI in a round, and starts it again."""
    with bench.row("ended") as row:
        number = began(site, run)
        site.stop()
        took = stopwatch()
        bench.start(site)
        until(site.connected, 240, "the site connected again")
        row.seconds = took()
        row.seen = _lost_and_back(run, site, number)


def _lost_and_back(run: Run, site: Hospital, number: int) -> str:
    """Why it is missing in the round, and when it came back."""
    again = wait_back(run, site, number)
    assert site.name in run.failures[number], run.failures
    return f"round {number}: {run.failures[number][site.name]}; in again from round {again}"


ABSENCES = Scenario(
    absences,
    {
        "late": ("a straggler past the deadline", "named, weighs nothing; in again"),
        "stopped": ("a site's processes stand still for 60 s (SIGSTOP)", "the round does not end by it; it is in again"),
        "cut": ("network cut of 3 minutes", "rounds go on, the site named; it comes back"),
        "killed": ("site kill -9 in training", "round goes on without it, named; it comes back"),
        "ended": ("site SIGTERM and back", "back at once; the round's work is lost and named"),
    },
)
