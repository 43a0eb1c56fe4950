"""One run of a sweep: what ends it."""

from pathlib import Path

import numpy as np
import pytest

from common.config.run import RunConfig, config_from_table
from common.errors import FederationError
from common.messages.round import SiteReply
from common.messages.update import Update
from simulation.sweep import job
from simulation.sweep.job import run_job, within_norms
from simulation.sweep.plan import Job

HERE = Job("arm", 0, "h without far", "h", RunConfig().to_json(), (Path("nowhere"),), (), Path("cache"), "")


def replies(**norms: float) -> dict[str, SiteReply]:
    return {site: SiteReply(site, 1, update=Update({"w": np.array([norm], np.float32)})) for site, norm in norms.items()}


@pytest.mark.parametrize(("key", "limit"), [("max_update_ratio", 3.0), ("max_update_norm", 8.0)])
def test_an_arm_that_the_server_would_cut_short_is_none(key: str, limit: float) -> None:
    plan = config_from_table({"federation": {"max_update_ratio": 0.0, key: limit}}).federation
    fine = replies(a=1.0, b=2.0, c=2.5)
    assert within_norms(fine, plan) is fine
    with pytest.raises(FederationError, match=r"c: The update's norm 9 is"):
        within_norms(replies(a=1.0, b=2.0, c=9.0), plan)


def test_errors_become_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere" in run_job(HERE)["error"]

    def wrong(*_: object) -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(job, "answers", wrong)
    told = run_job(HERE)
    assert told["error"] == "ZeroDivisionError: nothing to divide by"
    assert "in wrong" in told["trace"]
