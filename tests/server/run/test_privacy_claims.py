from dataclasses import replace

import pytest

from common.config.run import config_from_table
from common.errors import BUDGET_SPENT
from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge
from server.report.publish import render_html
from server.report.results import complete
from server.run.privacy_claims import aggregation_claims, privacy_claims

PRIVATE = config_from_table(
    {
        "objective": {"dino": 0.0, "ibot": 0.0, "koleo": 0.0, "local_crops": 0},
        "privacy": {"enabled": True, "noise_multiplier": 1.2, "sample_rate": 0.1, "steps": 10, "delta": 1e-4},
    }
)


def line(sites, failures=(), attempts=1, epsilon=None):
    told = [{"site": site, "reason": reason} for site, reason in failures]
    return {"sites": list(sites), "failures": told, "attempts": attempts, "epsilon": epsilon or {}}


def test_a_site_is_charged_for_every_time_it_may_have_trained():
    rounds = [
        line("ab", epsilon={"a": 0.5, "b": 3.0}),
        line("b", [("a", "no reply within 5 s")], attempts=2),
        line("b", [("a", BUDGET_SPENT)], epsilon={"b": 3.5}),
    ]
    claims = privacy_claims(PRIVATE, rounds)
    assert claims["a"]["steps"] == 30
    assert claims["b"]["steps"] == 40
    assert claims["a"]["epsilon"] == pytest.approx(epsilon_of([Charge(1.2, 0.1, 30)], 1e-4))
    assert (claims["a"]["ledger_epsilon"], claims["b"]["ledger_epsilon"]) == (0.5, 3.5)
    assert (claims["a"]["unit"], claims["a"]["delta"]) == ("patient", 1e-4)


def test_a_run_without_privacy_claims_none():
    assert privacy_claims(config_from_table({}), [line("ab")]) == {}


def test_the_page_states_the_claim_and_what_is_outside_it():
    claims = privacy_claims(PRIVATE, [line("ab", epsilon={"a": 4.25})])
    page = " ".join(render_html(complete({"privacy": claims})).split())
    assert f'<td class="num">{claims["a"]["epsilon"]:.3f}</td> <td class="num">0.0001</td><td class="num">4.250</td>' in page
    assert "one patient&#39;s updates are replaced by zero" in page
    assert "the largest epsilon of all sites" in page
    assert "patient counts that a site&#39;s policy lets go" in page


def test_no_noise_is_no_bound():
    silent = replace(PRIVATE, privacy=replace(PRIVATE.privacy, noise_multiplier=0.0))
    assert "no bound" in render_html(complete({"privacy": privacy_claims(silent, [line("ab")])}))


def test_secure_aggregation_and_noise_for_whole_hospitals_are_told_with_their_warning():
    config = config_from_table({"secure": {"enabled": True}, "site_level": {"enabled": True, "noise": 2.0}})
    told = aggregation_claims(config, [line("abcd"), line("abc")], 10_000)
    assert told["secure"]
    assert told["fewest"] == 3
    assert told["site_level"]["epsilon"] == pytest.approx(epsilon_of([Charge(2.0, 1.0, 2)], 1e-3))
    page = " ".join(render_html(complete({"aggregation": told})).split())
    assert "only sums over 3 hospitals or more" in page
    assert "With 1 of 3 hospitals telling the server all that they know, another's update is hidden among 2." in page
    assert "With 2 of 3 hospitals telling the server all that they know, another's update is known." in page
    assert "67 times the largest change" in page  # 2 sqrt(10000) / 3
    plain = aggregation_claims(config_from_table({}), [line("ab")], 5)
    assert "Aggregation" not in render_html(complete({"aggregation": plain}))


def test_what_the_strategy_counted_by_site_is_what_is_claimed():
    told = line("ab", [("c", BUDGET_SPENT)], attempts=2) | {"trained": {"a": 1, "b": 2, "c": 1}}
    claims = privacy_claims(PRIVATE, [told])
    assert {site: claim["steps"] for site, claim in claims.items()} == {"a": 10, "b": 20, "c": 10}
