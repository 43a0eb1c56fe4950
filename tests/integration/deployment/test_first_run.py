"""The documented first run, by a user who has nothing yet: an empty home, an empty cache, no `[connection] weights`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cli.main import main as site_main
from client.deployment.home import open_home
from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import ROOT, Federation, Run, until

pytestmark = [pytest.mark.deployment, pytest.mark.slow]


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path / "user" / "cache"))
    built = Federation(tmp_path)
    built.build(sites=2, patients=3)
    yield built
    built.stop()


def test_the_first_run_works_at_the_first_attempt(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    federation.start()
    sha256 = build_bundle(ROOT).sha256
    for site in federation.hospitals.values():
        assert open_home(site.home).config.connection.weights == ""
        site.approve(sha256)
        capsys.readouterr()
        site_main(["doctor", str(site.home), "--config", "demo", "--quick", "--json"])
        checks = {row["check"]: row["level"] for row in json.loads(capsys.readouterr().out)["checks"]}
        assert checks["weights"] == "ok"
        site.start()
    until(lambda: federation.online() == set(federation.hospitals), 90, "both hospitals online")
    run = Run.begin(federation, "first", "rounds=1", "holdout=0")
    assert run.ends(300) == 0, run.error
    assert [(line["attempts"], line["failures"]) for line in run.rounds] == [(1, [])]
    assert all(site.events("refused") == 0 for site in federation.hospitals.values())
