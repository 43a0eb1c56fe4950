"""A gate that lies: started in the place of a hospital's own by the tests, it spoils what the honest one would send."""

import os
import sys
import time
from pathlib import Path

ROOT, TRICK, *ARGUMENTS = sys.argv[1:]
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
from flwr.app import Array, Context, Message, MetricRecord, RecordDict  # noqa: E402

from client.gate.gate import Gate  # noqa: E402
from client.gate.supernode import serve  # noqa: E402
from common.config.site import SITE_VARIABLE  # noqa: E402
from common.messages.round import CHANGE, METRICS, pack_arrays, read_task  # noqa: E402


def spoil(content: RecordDict, trick: str) -> RecordDict:
    """One lie of the list."""
    arrays = {name: array.numpy() for name, array in content.array_records[CHANGE].items()}
    first = sorted(arrays)[0]
    if trick == "nan":
        arrays[first] = np.full_like(arrays[first], np.nan)
    elif trick == "shapes":
        arrays[first] = np.zeros(3, np.float32)
    elif trick == "names":
        arrays["something.else"] = arrays.pop(first)
    elif trick == "norm":
        arrays = {name: 100 * array for name, array in arrays.items()}
    elif trick == "old":
        content[METRICS] = MetricRecord({**content.metric_records[METRICS], "round": 1})
    if trick == "garbage":
        record = pack_arrays(arrays)
        record[first] = Array("float32", tuple(arrays[first].shape), "numpy.ndarray", os.urandom(len(record[first].data)))
        content[CHANGE] = record
    elif trick == "pickle":
        record = pack_arrays(arrays)
        data = b"cos\nsystem\n(S'touch /tmp/fedmri-unpickled'\ntR." + bytes(len(record[first].data))
        record[first] = Array("float32", tuple(arrays[first].shape), "numpy.ndarray", data)
        content[CHANGE] = record
    else:
        content[CHANGE] = pack_arrays(arrays)
    return content


class Hostile(Gate):
    """Honest until the reply is made."""

    def answer(self, message: Message, context: Context, bundle: bytes) -> tuple[RecordDict, Context]:
        """The lie of this round: line n of the file `trick`; "sleep:30" waits before it answers honestly."""
        tricks = Path(TRICK).read_text().split("\n")
        number = read_task(message.content).round
        trick = tricks[min(number, len(tricks)) - 1]
        if trick.startswith("sleep:"):
            time.sleep(float(trick.partition(":")[2]))
        content, context = super().answer(message, context, bundle)
        if trick and not trick.startswith("sleep:") and CHANGE in content:
            content = spoil(content, trick)
        return content, context


if __name__ == "__main__":
    sys.exit(serve("flwr-clientapp", ARGUMENTS, Hostile(Path(os.environ[SITE_VARIABLE]))))
