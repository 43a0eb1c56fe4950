"""One hospital and its coordinator, by the commands that people type: a bundle runs there when it is approved, and not before."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from client.gate.audit_log import verify
from tests.integration.deployment.federation import Federation, Hospital, Run, until

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx is not installed"),
]


@pytest.fixture
def federation(tmp_path) -> Iterator[Federation]:
    one = Federation(tmp_path)
    try:
        yield one
    finally:
        one.stop()


def of_bundle(site: Hospital) -> list[str]:
    """Processes that were started with the folder of an unpacked bundle."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(site.home / "state" / "bundles").encode() in file.read_bytes():
                found.append(file.parent.name)
    return found


def test_a_hospital_runs_what_it_has_approved_and_nothing_else(federation) -> None:
    from server.deployment.bundle import build_bundle

    federation.build(sites=2, joined=1)
    federation.start()
    [site] = federation.hospitals.values()
    site.start()
    until(lambda: federation.online() == {site.name}, 120, "the hospital online")
    alone = ("rounds=1", "min_sites=1", "round_retries=0")
    refused = Run.begin(federation, "refused", *alone)
    assert refused.ends() == 1
    sha256 = build_bundle().sha256
    assert f"the site has not approved the bundle {sha256[:12]}" in refused.error
    assert [entry["event"] for entry in site.log()] == ["asked", "refused"]
    assert (site.home / "state" / "refused" / f"{sha256}.fab").is_file()
    assert not list((site.home / "state").glob("**/client/app.py"))  # nothing of it was unpacked, by the gate or by Flower
    site.approve(sha256)
    run = Run.begin(federation, "approved", *alone)
    assert run.ends() == 0, run.error
    assert [r["sites"] for r in run.rounds] == [[site.name]]
    assert json.loads((run.out / "report.json").read_text())["external"]["n"] == 6
    assert json.loads((run.out / "report.json").read_text())["provenance"]["data"]["compared_with_external"] == [site.name]
    assert verify(site.home / "state" / "audit.jsonl").events["answered"] == 2  # whether it has external patients, and a round

    # The external hospital is this one under another name, a patient of it under another name of their own.
    other = federation.folder / "elsewhere" / "far"
    shutil.copytree(federation.data / "external", other)
    patient = next(p for p in sorted(site.data.iterdir()) if p.name.startswith("sub-"))
    for file in patient.glob("**/*.nii.gz"):
        to = other / "sub-new" / "anat" / file.name.replace(patient.name, "sub-new")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)
    same = Run.begin(federation, "same", *alone, external=other)
    assert same.ends() == 1
    assert f"{site.name}: patients of this hospital are external ones of the run" in same.error
    assert "sub-" not in same.error
    assert [(entry["event"], entry.get("rule")) for entry in site.log()][-2:] == [
        ("asked", None),
        ("refused", "external-patients"),
    ]
    assert site.log()[-1]["by"] == "bundle"

    # Its code is kept in memory for the next request; with the site all of that ends.
    until(lambda: of_bundle(site), 60, "a warm process of the bundle")
    site.stop()
    until(lambda: not of_bundle(site), 10, "its end")
