"""What a bundle tells the gate beside its reply: the rule by which it refused. It stays at the site, in the audit log.

state     refused-by: ConfigRecord   rule: a key of site.toml, or a code (`common.errors`)
"""

from flwr.app import ConfigRecord, RecordDict

from common.text import printable

REFUSED_BY = "refused-by"  # name of the record in the node's own memory, of which nothing is sent
RULE = "rule"
LONGEST = 60


def note_rule(state: RecordDict, rule: str) -> None:
    """Leave it for the gate."""
    state[REFUSED_BY] = ConfigRecord({RULE: rule})


def take_rule(state: RecordDict) -> str:
    """What a bundle has left, "" where it has not; it is gone then."""
    record = state.pop(REFUSED_BY, None)
    return printable(str(record.get(RULE, "")), LONGEST) if isinstance(record, ConfigRecord) else ""
