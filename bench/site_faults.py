"""Faults at a hospital: it stops, lies, is late, cut off, full, or lives at another time."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from fault_bench import Bench, back, began, whole
from fault_tools import small_disk, trick, wrong_clock

from client.gate.audit_log import verify
from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import Run, until

LIES = {
    "nan": "NaN",
    "shapes": "wrong shapes",
    "names": "wrong names",
    "pickle": "a pickle in the place of an array",
    "norm": "a hundredfold update",
    "old": "an old round's reply",
    "garbage": "garbage bytes",
}


def late_approval(bench: Bench) -> None:
    """The first run of all: one hospital has not approved the code yet, and does so while the run is on."""
    late, *others = bench.sites()
    run = Run.begin(bench.federation, "first", "rounds=2", "pause_after=0")
    sha256 = build_bundle().sha256
    run.until(lambda: late.events("refused"), 240, "the refusal of a bundle that nobody approved")
    late.approve(sha256)
    assert (late.home / "state" / "refused" / f"{sha256}.fab").is_file()
    assert run.ends() == 0, run.error
    assert [r["sites"] for r in run.rounds] == [sorted(site.name for site in others), sorted(bench.federation.hospitals)]
    said = (run.out / "report.json").read_text() + (run.out / "rounds.jsonl").read_text()
    assert str(bench.federation.folder / "hospitals") not in said, "a hospital's path is in the report"
    for site in (late, *others):
        assert verify(site.home / "state" / "audit.jsonl").events["asked"] == 3  # two rounds, and what calibration asks
        assert "does not share sums" in site.log()[-1]["reason"]  # by default nothing but updates leaves
    bench.tell("a site that approves late", "refused and named; in from the next round", f"round 1: {run.failures[1][late.name]}")


def site_killed(bench: Bench) -> None:
    """A power cut at a hospital while it trains."""
    site = bench.sites()[1]
    run = Run.begin(bench.federation, "site-killed", "rounds=5")
    began(site, run)
    time.sleep(2)
    site.kill()
    at = time.monotonic()
    site.start()
    until(site.connected, 240, "the site connected again")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 5)
    reason, again = run.failures[1][site.name], back(run, site, 1)
    verify(site.home / "state" / "audit.jsonl")
    expected = "round goes on without it, named; it comes back"
    bench.tell("site kill -9 in training", expected, f"round 1: {reason}; in again from round {again}", seconds)


def site_terminated(bench: Bench) -> None:
    """A hospital that stops FedMRI in a round, and starts it again."""
    site = bench.sites()[2]
    run = Run.begin(bench.federation, "site-stopped", "rounds=4")
    began(site, run)
    site.stop()
    at = time.monotonic()
    site.start()
    until(site.connected, 240, "the site connected again")
    seconds = time.monotonic() - at
    assert run.ends() == 0, run.error
    whole(run, 4)
    seen = f"in again from round {back(run, site, 1)}"
    bench.tell("site SIGTERM and back", "back at once; the round's work is lost and named", seen, seconds)


def site_disk_full(bench: Bench) -> None:
    """No room for the audit log of a hospital; then there is. Needs root."""
    site = bench.sites()[3]
    site.stop()
    shutil.rmtree(site.home / "state")
    with small_disk(site.home / "state", 6000):
        site.start()
        until(site.connected, 240, "the site connected")
        filler = site.home / "state" / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        run = Run.begin(bench.federation, "site-disk-full", "rounds=3")
        run.until(lambda: len(run.rounds) >= 1, 300, "the first round")
        filler.unlink()
        at = time.monotonic()
        run.until(lambda: any(site.name in r["sites"] for r in run.rounds), 400, "the site's next update")
        seconds = time.monotonic() - at
        assert run.ends() == 0, run.error
        whole(run, 3)
        reason, again = run.failures[1][site.name], back(run, site, 1)
        verify(site.home / "state" / "audit.jsonl")
        site.stop()
    site.start()
    expected = "nothing leaves unlogged; named; back when there is room"
    bench.tell("site's disk full", expected, f"round 1: {reason}; in from round {again}", seconds)


def hostile_sites(bench: Bench) -> None:
    """Two at a time, each with a lie a round; the last round is honest."""
    sites = bench.sites()
    lies = {sites[1].name: ["nan", "shapes", "names", "pickle", ""], sites[2].name: ["garbage", "norm", "old", "", ""]}
    for name, tricks in lies.items():
        trick(bench.federation.hospitals[name], *tricks)
    run = Run.begin(bench.federation, "hostile", "rounds=5", "pause_after=0")
    assert run.ends(1500) == 0, run.error
    for name in lies:
        trick(bench.federation.hospitals[name], "")
    whole(run, 5)
    for name, number, lie in ((name, i, lie) for name, tricks in lies.items() for i, lie in enumerate(tricks, start=1)):
        assert (name in run.rounds[number - 1]["sites"]) is not bool(lie), (name, number, lie)
        if lie:
            bench.tell(f"a site sends: {LIES[lie]}", "refused, named, weighs nothing", run.failures[number][name])
    assert not Path("/tmp/fedmri-unpickled").exists()


def straggler(bench: Bench) -> None:
    """A hospital that answers after the deadline."""
    site = bench.sites()[1]
    trick(site, "sleep:150", "")
    run = Run.begin(bench.federation, "straggler", "rounds=4", "round_timeout=90", "pause_after=0")
    at = time.monotonic()
    assert run.ends() == 0, run.error
    trick(site, "")
    whole(run, 4)
    assert run.failures[1] == {site.name: "no reply within 90 s"}
    seen = f"round 1: no reply within 90 s; in from round {back(run, site, 1)}"
    bench.tell("a straggler past the deadline", "named, weighs nothing", seen, time.monotonic() - at)


def network_cut(bench: Bench) -> None:
    """Three minutes without a network between a hospital and the coordinator."""
    site, *_, slow = bench.sites()
    trick(slow, "sleep:15")
    run = Run.begin(bench.federation, "cut", "rounds=8", "pause_after=0")
    began(site, run)
    bench.proxy.cut()
    time.sleep(180)
    bench.proxy.mend()
    at = time.monotonic()
    cut_off = len(run.rounds)
    run.until(lambda: any(site.name in r["sites"] for r in run.rounds[cut_off:]), 400, "the site's next update")
    seconds = time.monotonic() - at
    assert run.ends(900) == 0, run.error
    trick(slow, "")
    whole(run, 8)
    lost = sorted(number for number, failures in run.failures.items() if site.name in failures)
    assert lost
    assert site.name in run.rounds[-1]["sites"]
    expected = "rounds go on, the site named; it comes back"
    bench.tell("network cut of 3 minutes", expected, f"lost rounds {lost}, in again", seconds)


def clock_off(bench: Bench) -> None:
    """A hospital's clock is two hours ahead."""
    site = bench.sites()[1]
    site.stop()
    with wrong_clock(bench.federation.folder / "wrong-clock"):
        site.start()
    until(lambda: "clock" in site.reason(), 240, "the reason that the site tells")
    said = site.reason()
    run = Run.begin(bench.federation, "clock", "rounds=1")
    assert run.ends() == 0, run.error
    assert site.name not in run.rounds[0]["sites"]
    site.stop()
    at = time.monotonic()
    site.start()
    until(lambda: site.name in bench.federation.online(), 240, "the site online")
    expected = "the site says so and takes no part; back when it is set"
    bench.tell("a clock two hours off", expected, said, time.monotonic() - at)
