"""The folders of a hospital and of a coordinator that `init` of 2a60dec made, and what a private run left in them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client.cli.main import main as site_main
from common.config.site import SiteConfig, read_site_config
from tests.compatibility.conftest import Asked, told


def test_site_toml_says_what_it_said(hospital: Path) -> None:
    config = read_site_config(hospital / "site.toml")
    assert config.privacy.epsilon == 40.0
    assert config.policy.share_counts is True
    assert config.policy.min_patients == 1
    assert config.policy.approval is True
    assert config.connection.key == "keys/site"
    assert config.files == SiteConfig().files


@pytest.mark.slow
def test_the_ledger_counts_what_was_spent(hospital: Path, asked: Asked) -> None:
    before = told("budget.json")
    settings = ("privacy.noise_multiplier=2.0", "privacy.sample_rate=0.5", "privacy.steps=3", "federation.rounds=2")
    now = asked("fedmri-site", "budget", hospital, *(word for setting in settings for word in ("--set", setting)))
    assert before["spent"] > 0
    assert now["spent"] == pytest.approx(before["spent"], rel=1e-6)
    assert now["left"] == pytest.approx(before["left"], rel=1e-6)
    assert now["rounds_that_fit"] == before["rounds_that_fit"]
    assert now["limit"] == before["limit"] == 40.0


def test_the_ledger_still_notices_a_changed_line(hospital: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = hospital / "privacy-ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"steps":3', '"steps":1', 1))
    assert site_main(["budget", str(hospital)]) == 1
    assert "not as it was written" in " ".join(capsys.readouterr().err.split())


def test_the_audit_log_is_verified(hospital: Path, asked: Asked) -> None:
    assert asked("fedmri-site", "audit", "verify", hospital) == told("audit-verify.json")


def test_approvals_are_known(hospital: Path, asked: Asked) -> None:
    [line] = [line for line in (hospital / "bundles.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert list(asked("fedmri-site", "approve", hospital)["approved"]) == [line.split()[0]]


def test_the_coordinators_home_is_read(old: Callable[[str], Path], asked: Asked) -> None:
    home = old("coordinator")
    (home / "state" / "logs").mkdir(parents=True)
    status = asked("fedmri-server", "status", home, code=1)
    assert [site["name"] for site in status["sites"]] == ["hospital-a"]
