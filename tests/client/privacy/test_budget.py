from pathlib import Path

import pytest

from client.privacy.budget import Budget, require_open
from common.config.site import SitePrivacy, read_site_config
from common.errors import ConfigError, PrivacyError
from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge

ROUND = Charge(1.0146484375, 0.08, 100)  # 4 of them: 7.99 at delta 1e-3


def budget(path: Path, limit: float = 8.0, facts: tuple[tuple[str, ...], ...] = (("id:a",), ("id:b",))) -> Budget:
    return Budget("du", limit, 1e-3, path / "ledger.jsonl", facts)


@pytest.mark.slow
def test_training_stops_by_itself_when_the_budget_is_spent(tmp_path: Path) -> None:
    """400 steps of this noise fit an epsilon of 8 and no more, whoever asks."""
    account = budget(tmp_path)
    assert account.rounds_left(ROUND) == 4
    for number in range(4):
        spent = budget(tmp_path).charge(ROUND, f"run-{number}")  # each from the file, as after a restart
    assert spent == pytest.approx(7.994, abs=0.01)
    before = account.path.read_bytes()
    with pytest.raises(PrivacyError, match="beyond the hospital's 8") as refusal:
        account.charge(ROUND, "one more")
    assert refusal.value.public == "the site's privacy budget is spent"
    assert account.path.read_bytes() == before
    assert account.rounds_left(ROUND) == 0


@pytest.mark.slow
def test_a_patient_who_comes_later_has_spent_less_and_the_worst_decides(tmp_path: Path) -> None:
    budget(tmp_path, facts=(("id:a",),)).charge(ROUND, "first")
    both = budget(tmp_path, facts=(("id:a",), ("id:new",)))
    assert budget(tmp_path, facts=(("id:new",),)).spent() == 0
    assert both.charge(ROUND, "second") == pytest.approx(epsilon_of([ROUND, ROUND], 1e-3))
    assert budget(tmp_path, facts=(("id:new",),)).spent() == pytest.approx(epsilon_of([ROUND], 1e-3))


def test_without_a_limit_spending_is_recorded_all_the_same(tmp_path: Path) -> None:
    account = budget(tmp_path, limit=0.0)
    account.charge(Charge(0.0, 0.5, 1), "no noise at all")
    assert account.spent() == float("inf")
    assert account.rounds_left(ROUND) is None


def test_no_noise_is_beyond_every_limit(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError):
        budget(tmp_path, limit=1e6).charge(Charge(0.0, 0.5, 1), "run")


def test_a_budget_closes_the_site_to_runs_without_privacy() -> None:
    require_open("du", SitePrivacy())
    with pytest.raises(PrivacyError, match=r"privacy\.enabled") as refusal:
        require_open("du", SitePrivacy(epsilon=8.0))
    assert "8" not in refusal.value.public


@pytest.mark.parametrize(
    "line", ["epsilon = -1", "delta = 0", "delta = 1.5", 'ledger = ""', "epsilom = 3", 'same_patient = "perhaps"']
)
def test_a_wrong_budget_is_refused_by_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "site.toml").write_text(f"[privacy]\n{line}\n")
    with pytest.raises(ConfigError, match=rf"privacy\.{line.split(maxsplit=1)[0]}"):
        read_site_config(tmp_path)
