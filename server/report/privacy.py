"""`privacy` and `aggregation` of report.json: each site's claim, what its audit found, and what the server saw of the updates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.secure.threshold import hidden_among
from server.report.decode import listed, names, real, table, whole

TOLD = 3  # so many counts of colluding hospitals are told one by one; of a thousand hospitals nobody reads them all


@dataclass(frozen=True)
class Check:
    """One of an audit's exact tests."""

    name: str | None
    passed: bool
    detail: str | None


@dataclass(frozen=True)
class Audit:
    """The results of an audit. `passed` is None where the audit does not say."""

    passed: bool | None
    checks: tuple[Check, ...]
    canary_passed: bool | None
    audited: float | None  # epsilon that the canaries proved
    claimed: float | None
    membership_auc: float | None


@dataclass(frozen=True)
class Claim:
    """A site's differential privacy. Epsilon is None where nothing bounds it."""

    site: str
    epsilon: float | None
    delta: float | None
    ledger_epsilon: float | None
    unit: str | None
    noise_multiplier: float | None
    max_grad_norm: float | None
    sample_rate: float | None
    steps: int | None
    adjacency: str | None
    mechanism: str | None
    composition: str | None
    outside: tuple[str, ...]
    audit: Audit | None


@dataclass(frozen=True)
class SiteLevel:
    """Site-level differential privacy, by a trusted server."""

    epsilon: float | None
    delta: float | None
    unit: str | None
    rounds: int | None
    noise_multiplier: float | None
    clip: float | None
    warning: str | None


@dataclass(frozen=True)
class Aggregation:
    """Whether the server saw sums only, of how many hospitals or more, and noise for whole hospitals.

    Attributes:
        needed: whose shares, so many, take any mask off; None: the report does not say.
    """

    secure: bool
    fewest: int | None
    needed: int | None
    site_level: SiteLevel | None

    @property
    def collusion(self) -> tuple[tuple[int, int], ...]:
        """How many hospitals tell the coordinator all, and among how many another's update is hidden then."""
        if self.fewest is None or self.needed is None:
            return ()
        known = min(self.needed, self.fewest - 1)
        counts = sorted(k for k in {*range(1, TOLD + 1), known} if 0 < k < self.fewest)
        return tuple((k, hidden_among(self.fewest, self.needed, k)) for k in counts)


def decode_claims(value: Any) -> tuple[Claim, ...]:
    """From `privacy` of report.json."""
    return tuple(_claim(str(site), table(entry)) for site, entry in table(value).items())


def decode_audit(value: Any) -> Audit | None:
    """From a claim's `audit`; an audit of another shape than ours counts as none."""
    entry = table(value)
    if not entry:
        return None
    checks = tuple(_check(table(check)) for check in listed(entry.get("checks")))
    canary = table(entry.get("canary"))
    return Audit(
        passed=_flag(entry.get("passed")),
        checks=checks,
        canary_passed=_flag(canary.get("passed")),
        audited=real(canary.get("audited")),
        claimed=real(canary.get("claimed")),
        membership_auc=real(entry.get("membership_auc")),
    )


def decode_aggregation(value: Any) -> Aggregation:
    """From `aggregation` of report.json."""
    entry = table(value)
    level = table(entry.get("site_level"))
    found = SiteLevel(
        epsilon=real(level.get("epsilon")),
        delta=real(level.get("delta")),
        unit=_text(level.get("unit")),
        rounds=whole(level.get("rounds")),
        noise_multiplier=real(level.get("noise_multiplier")),
        clip=real(level.get("clip")),
        warning=_text(level.get("warning")),
    )
    numbers = whole(entry.get("fewest")), whole(entry.get("needed"))
    return Aggregation(entry.get("secure") is True, *numbers, found if level else None)


def _claim(site: str, entry: Mapping[str, Any]) -> Claim:
    return Claim(
        site=site,
        epsilon=real(entry.get("epsilon")),
        delta=real(entry.get("delta")),
        ledger_epsilon=real(entry.get("ledger_epsilon")),
        unit=_text(entry.get("unit")),
        noise_multiplier=real(entry.get("noise_multiplier")),
        max_grad_norm=real(entry.get("max_grad_norm")),
        sample_rate=real(entry.get("sample_rate")),
        steps=whole(entry.get("steps")),
        adjacency=_text(entry.get("adjacency")),
        mechanism=_text(entry.get("mechanism")),
        composition=_text(entry.get("composition")),
        outside=names(entry.get("outside")),
        audit=decode_audit(entry.get("audit")),
    )


def _check(entry: Mapping[str, Any]) -> Check:
    return Check(_text(entry.get("name")), entry.get("passed") is True, _text(entry.get("detail")))


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
