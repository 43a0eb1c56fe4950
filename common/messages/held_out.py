"""Before a site trains: whether any of its patients is one of the run's external patients. One request, one reply.

    request   config as for a round; held-out: ArrayRecord   the external patients' fingerprints, as they are
    reply     metrics, site                                  as after a failure: `error` is "" where the site may train

Of how many, and of whom, nothing leaves.
"""

from collections.abc import Sequence

from flwr.app import RecordDict

from common.data.fingerprint import Fingerprint
from common.messages.round import Task, write_task
from common.messages.twins import pack_external

HELD_OUT = "held-out"  # name of the record
THEIRS = "the site has patients who are external ones of this run, and does not train for it"


def write_held_out(task: Task, external: Sequence[Fingerprint]) -> RecordDict:
    """The request."""
    asked = write_task(task, None)
    asked[HELD_OUT] = pack_external(external)
    return asked
