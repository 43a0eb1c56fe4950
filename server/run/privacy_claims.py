"""The report's privacy claims: the guarantee, its terms, and what it does not cover."""

from collections.abc import Sequence
from typing import Any

from common.config.run import RunConfig
from common.errors import BUDGET_SPENT
from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge
from common.privacy.site_level import site_level_claim
from common.secure.threshold import sites_needed

ADJACENCY = "one patient's updates are replaced by zero; how many patients a site has is public"
MECHANISM = "DP-SGD: Poisson sampling, clipping per patient, Gaussian noise of the operating system; PRV accountant"
COMPOSITION = "a patient at one site: the largest epsilon of all sites; a patient at several: their sum"
OUTSIDE = (
    "patient counts that a site's policy lets go",
    "seconds that a site's round took",
    "the external hospital's patients, who are evaluated on in the clear",
    "that a site has a budget, and when it is spent",
    "what an audit discloses, if a site sends one: how many patients it has, how well losses tell them from others",
    "baselines beside the run (simulation only): they train without privacy",
)


def privacy_claims(config: RunConfig, rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The claim for each site that took part; empty where the run was not private.

    Args:
        config: `privacy` is read.
        rounds: the lines of rounds.jsonl, and that of a round which budgets ended. A site that was asked is taken to have spent,
            also where its answer was lost, and again in every attempt.

    Returns:
        {site: ...}: `epsilon` of this run at the run's delta (None: no bound), and `ledger_epsilon`, what the site says that
        this run has charged there. What its patients have spent in other runs stays at the site.
    """
    if not config.privacy.enabled:
        return {}
    plan = config.privacy
    claims = {}
    charged = [_charged(line) for line in rounds]
    for site in sorted({site for line in charged for site in line}):
        asked = sum(line.get(site, 0) for line in charged)
        told = [line["epsilon"][site] for line in rounds if site in line.get("epsilon", {})]
        epsilon = epsilon_of([Charge(plan.noise_multiplier, plan.sample_rate, plan.steps * asked)], plan.delta)
        claims[site] = {
            "epsilon": epsilon,
            "delta": plan.delta,
            "unit": "patient",
            "noise_multiplier": plan.noise_multiplier,
            "max_grad_norm": plan.max_grad_norm,
            "sample_rate": plan.sample_rate,
            "steps": plan.steps * asked,
            "ledger_epsilon": told[-1] if told else None,
            "adjacency": ADJACENCY,
            "mechanism": MECHANISM,
            "composition": COMPOSITION,
            "outside": list(OUTSIDE),
        }
    return claims


def aggregation_claims(config: RunConfig, rounds: Sequence[dict[str, Any]], values: int) -> dict[str, Any]:
    """What the server saw of the sites' updates, and the claim for whole hospitals where noise was added for them.

    Args:
        config: `secure` and `site_level` are read.
        rounds: the lines of rounds.jsonl.
        values: how many the largest round trains.

    Returns:
        `secure`, `fewest` (sites in a sum), `needed` (of the shares of how many any mask can be taken off), `site_level` (of
        `common.privacy.site_level`, or None).
    """
    fewest = min((len(line["sites"]) for line in rounds), default=0)
    level = config.site_level
    releases = len(rounds) + sum(line.get("redone", 0) for line in rounds)  # a noised mean that went out stays out
    claim = site_level_claim(level, releases, values, fewest) if level.enabled and rounds else None
    asked = [len({*line["sites"], *(failure["site"] for failure in line["failures"])}) for line in rounds]
    needed = min((sites_needed(n, config.secure, config.federation.min_sites) for n in asked), default=0)
    return {"secure": config.secure.enabled, "fewest": fewest, "needed": min(needed, fewest), "site_level": claim}


def _charged(line: dict[str, Any]) -> dict[str, int]:
    """How often each site may have charged the round: whenever it was asked to train and its budget did not refuse."""
    if "trained" in line:
        return dict(line["trained"])
    asked = {*line["sites"], *(f["site"] for f in line["failures"] if f["reason"] != BUDGET_SPENT)}
    return dict.fromkeys(asked, line["attempts"])
