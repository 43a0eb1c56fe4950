"""Clocks that are wrong, or jump while a run is on: forward and back, at a hospital and at the coordinator."""

from fault_bench import Bench, Scenario, began, kept, stopwatch, wait_back
from fault_clock import move

from server.deployment.run_status import is_held
from tests.integration.deployment.federation import Hospital, Run, until

AHEAD, BEHIND = 7200, -1800  # seconds, of a hospital
FORWARD, BACK = 3600, -1800  # of the coordinator
SETTINGS = ("rounds=60", "pause_after=0", "min_sites=1", "wait_for_sites=240")
RIGHT = "Look whether this one is right"


def clocks(bench: Bench) -> None:
    """Hospitals first; then the coordinator, back and forward."""
    plain, forward, back, wrong = bench.sites()
    wrong.stop()
    move(wrong.home, AHEAD)
    bench.start(wrong)
    run = bench.run("clocks", *SETTINGS)
    try:
        began(plain, run)
        move(forward.home, AHEAD)
        move(back.home, BEHIND)
        for key, site, says in (
            ("wrong", wrong, "2.0 hours ahead"),
            ("site-forward", forward, "set forward by 2.0 hours"),
            ("site-back", back, "set back by 30 minutes"),
        ):
            _set_right(bench, key, run, site, says)
        run = _server_moves(bench, "server-back", run, plain, BACK)
        run = _server_moves(bench, "server-forward", run, plain, FORWARD)
    finally:
        for home in (bench.federation.home, *(site.home for site in bench.federation.hospitals.values())):
            move(home, 0)
        bench.cancel(run)
    kept(run)


def _set_right(bench: Bench, key: str, run: Run, site: Hospital, says: str) -> None:
    """A hospital whose clock is wrong says so; then it is set."""
    with bench.row(key) as row:
        row.seen = _told(site)
        assert says in row.seen, f"expected: {says}"
        if key == "wrong":
            assert all(site.name not in r["sites"] for r in run.rounds), run.rounds
        move(site.home, 0)
        took = stopwatch()
        again = wait_back(run, site, len(run.rounds))
        row.seconds = took()
        row.seen += f" In again from round {again}."


def _server_moves(bench: Bench, key: str, run: Run, site: Hospital, seconds: int) -> Run:
    """The coordinator's clock jumps while a round is on, and is set right; the run, or the one that went on with it."""
    with bench.row(key) as row:
        began(site, run)
        move(bench.federation.home, seconds)
        try:
            row.seen = _told(site)
            assert RIGHT in row.seen, f"expected: {RIGHT}"
            if key == "server-forward":
                assert run.ends(900) == 1
                assert "clock was set forward by" in run.error, run.error
        finally:
            move(bench.federation.home, 0)
        took = stopwatch()
        run, again, how = _in_again(bench, run, site)
        row.seconds = took()
        row.seen += f" {how}; in again from round {again}."
    return run


def _told(site: Hospital) -> str:
    """The sentence of the site's status, once it is about a clock."""
    until(lambda: "clock" in site.reason(), 300, f"a word of {site.name} about clocks")
    return site.reason()


def _in_again(bench: Bench, run: Run, site: Hospital) -> tuple[Run, int, str]:
    """Wait for the site's next update, in this run or, where it ends, in the resumed one."""
    number = len(run.rounds)
    until(lambda: not run.on or any(r["round"] > number and site.name in r["sites"] for r in run.rounds), 600, "the next update")
    if run.on:
        return run, wait_back(run, site, number), "The run went on"
    said = f"The run ended: {run.error} Resumed"
    assert "clock was set" in run.error, f"expected: why it ended, got {run.error}"
    until(lambda: not is_held(run.out), 300, "the end of its ServerApp")
    run = bench.run("", *SETTINGS, resume=True, out=run.out)
    return run, wait_back(run, site, number), said


CLOCKS = Scenario(
    clocks,
    {
        "wrong": (
            "a hospital's clock is two hours ahead from the start",
            "the site says so and takes no part; back when it is set",
        ),
        "site-forward": (
            "a hospital's clock jumps 2 h forward in a round",
            "the site says that its clock was set; back when it is right",
        ),
        "site-back": (
            "a hospital's clock jumps 30 min back in a round",
            "the site says that its clock was set; back when it is right",
        ),
        "server-back": (
            "the coordinator's clock jumps 30 min back in a round",
            "hospitals are told that theirs may be right; the run goes on, or by --resume",
        ),
        "server-forward": (
            "the coordinator's clock jumps 1 h forward in a round",
            "the run's error says so; hospitals are told that theirs may be right; --resume",
        ),
    },
    needs=("cc",),
)
