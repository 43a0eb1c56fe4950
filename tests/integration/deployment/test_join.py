"""From nothing to a report: a coordinator and four hospitals, by the commands that people type, over TLS and nginx."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.gate.audit_log import verify
from tests.integration.deployment.federation import Federation, Run, until

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("FEDMRI_FAULTS"), reason="with the fault table, which takes most of an hour: make faults"
    ),
    pytest.mark.skipif(not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()), reason="nginx is not installed"),
]


@pytest.fixture
def federation(tmp_path) -> Iterator[Federation]:
    one = Federation(tmp_path)
    try:
        yield one
    finally:
        one.stop()


def test_hospitals_join_train_and_appear_in_the_report(federation, capsys) -> None:
    from server.deployment.bundle import build_bundle

    federation.build()
    federation.start()
    sites = list(federation.hospitals.values())
    sha256 = build_bundle().sha256
    for site in sites[1:]:
        site.approve(sha256)
    for site in sites:
        site.start()
    until(lambda: len(federation.online()) == 4, 120, "four hospitals online")
    run = Run.begin(federation, "first", "rounds=2", "pause_after=0")
    run.until(lambda: sites[0].events("refused"), 240, "the refusal of a bundle that nobody approved")
    sites[0].approve(sha256)  # after reading what was kept: from the next round on it takes part
    assert (sites[0].home / "state" / "refused" / f"{sha256}.fab").is_file()
    assert run.ends() == 0
    first, second = run.rounds
    assert first["sites"] == sorted(site.name for site in sites[1:])
    assert run.failures[1] == {sites[0].name: f"the site has not approved the bundle {sha256[:12]}"}
    assert second["sites"] == sorted(federation.hospitals)
    report = json.loads((run.out / "report.json").read_text())
    assert report["external"]["n"] == 6
    said = (run.out / "report.json").read_text() + (run.out / "rounds.jsonl").read_text()
    assert str(federation.folder / "hospitals") not in said  # no path of a hospital's
    for site in sites:
        assert verify(site.home / "state" / "audit.jsonl").events["in"] == 3  # two rounds, and what calibration asks
        assert "does not share sums" in site.log()[-1]["reason"]  # by default nothing but updates leaves
        assert {entry["run"] for entry in site.log()} == {site.log()[0]["run"]}
    out = [entry for entry in sites[1].log() if entry["event"] == "out"][-1]
    assert out["arrays"]
    assert out["bytes"] > 1000
    assert not federation.status()["sites"][0].get("reason")
