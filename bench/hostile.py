"""A gate that lies: started in the place of a hospital's own by the tests, it spoils what the honest one would send."""

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT, TRICK, *ARGUMENTS = sys.argv[1:]
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict  # noqa: E402

from client.gate.gate import Gate  # noqa: E402
from client.gate.supernode import serve  # noqa: E402
from common.config.site import SITE_VARIABLE  # noqa: E402
from common.messages import round as wire  # noqa: E402
from common.messages.round import CHANGE, METRICS, SITE, pack_arrays, read_task  # noqa: E402

FACTORS = {"counts": 0, "long": 20, "norm": 100}  # of the change
CLAIMS: dict[str, dict[str, float]] = {  # beside the change
    "counts": {wire.NUM_EXAMPLES: 10_000_000, wire.LABELLED: 10_000_000},  # and nothing is changed: every round would freeze
    "many": {wire.NUM_EXAMPLES: 10_000_000, wire.LABELLED: 10_000_000},
    "long": {wire.NUM_EXAMPLES: 200, wire.LABELLED: 200},
    "labelled": {wire.NUM_EXAMPLES: 4, wire.LABELLED: 400},
    "metrics": {"loss": 1e308, "seconds": 1e308, "accuracy": 1.0, "../../etc/passwd": 1.0},
}


def spoil(content: RecordDict, trick: str) -> RecordDict:
    """One lie of the list."""
    kind, _, word = trick.partition(":")
    if kind in CLAIMS or kind == "name":
        content[METRICS] = MetricRecord({**content.metric_records[METRICS], **CLAIMS.get(kind, {})})
        site = {wire.NAME: word} if kind == "name" else {wire.COUNTS_SHARED: True}
        content[SITE] = ConfigRecord({**content.config_records[SITE], **site})
    elif kind == "old":
        content[METRICS] = MetricRecord({**content.metric_records[METRICS], "round": 1})
    arrays = {name: array.numpy() for name, array in content.array_records[CHANGE].items()}
    content[CHANGE] = torn(arrays, kind) if kind in ("garbage", "pickle") else pack_arrays(bent(arrays, kind))
    return content


def bent(arrays: dict[str, Any], trick: str) -> dict[str, Any]:
    """Arrays that are none, or others."""
    first = sorted(arrays)[0]
    if trick in FACTORS:
        return {name: (FACTORS[trick] * array).astype(array.dtype) for name, array in arrays.items()}
    if trick == "nan":
        arrays[first] = np.full_like(arrays[first], np.nan)
    elif trick == "shapes":
        arrays[first] = np.zeros((*arrays[first].shape, 2), np.float32)
    elif trick == "names":
        arrays["something.else"] = arrays.pop(first)
    return arrays


def torn(arrays: dict[str, Any], trick: str) -> ArrayRecord:
    """Bytes that are no array."""
    record, first = pack_arrays(arrays), sorted(arrays)[0]
    size = len(record[first].data)
    data = os.urandom(size) if trick == "garbage" else b"cos\nsystem\n(S'touch /tmp/fedmri-unpickled'\ntR." + bytes(size)
    record[first] = Array("float32", tuple(arrays[first].shape), "numpy.ndarray", data)
    return record


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
