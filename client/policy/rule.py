"""How a rule of the hospital refuses, and how its globs name things."""

from collections.abc import Iterable
from dataclasses import fields
from fnmatch import fnmatchcase

from common.config.site import SitePolicy
from common.errors import PolicyError

POLICY_KEYS = frozenset(key.name for key in fields(SitePolicy))


def named_by(name: str, globs: Iterable[str]) -> bool:
    """Whether a name is among those that the globs of `site.toml` stand for."""
    return any(fnmatchcase(name, glob) for glob in globs)


def refused(rule: str, text: str, public: str) -> PolicyError:
    """By a key of `[policy]`, or by "records": what a reply may hold at all, which no hospital can change."""
    name = f"policy.{rule}" if rule in POLICY_KEYS else rule
    return PolicyError(f"Refused by {name}: {text.removesuffix('.')}. Nothing left the site.", public=public, rule=name)
