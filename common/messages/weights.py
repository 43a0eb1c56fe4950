"""The offer of frozen weights, before the first round: a coordinator hands small ones to a site that lacks them.

    request   config: ConfigRecord    the fields of `Task`; `backbone` is the hash of the weights
              weights: ArrayRecord    one array of bytes, a whole safetensors file; empty: the coordinator only asks
    reply     metrics, site           as after a failure: `error` is "" where the site has them now, else LACKING or why not

The bytes are data: they are hashed, read as a safetensors header, and never unpickled.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from safetensors import SafetensorError, deserialize

from common.errors import FederationError, WeightsError
from common.messages.round import Task, unpack_array, write_task

WEIGHTS = "weights"  # name of the record, and of its array
MAX_BYTES = 32_000_000  # larger ones go by file: Flower's database is no place for them
LACKING = "the backbone weights of the run are not at the site"


def write_offer(task: Task, content: bytes = b"") -> RecordDict:
    """The request; `content` is the file, or nothing."""
    asked = write_task(task, None)
    asked[WEIGHTS] = ArrayRecord({WEIGHTS: Array(np.frombuffer(content, np.uint8))})
    return asked


def read_offer(asked: RecordDict) -> bytes:
    """The file that a request carries, b"" where it carries none.

    Raises:
        FederationError: it is no such request, or too large.
        WeightsError: what it carries is no safetensors file.
    """
    record = asked.get(WEIGHTS)
    if not isinstance(record, ArrayRecord) or list(record) != [WEIGHTS]:
        raise FederationError("The offer of weights holds something else.")
    shape = tuple(int(size) for size in record[WEIGHTS].shape)
    if len(shape) != 1 or not 0 <= shape[0] <= MAX_BYTES:
        raise FederationError(f"The offer of weights has shape {shape}; at most {MAX_BYTES} bytes are taken.")
    content = unpack_array(WEIGHTS, record[WEIGHTS], shape, "|u1").tobytes()
    if content:
        require_tensors(content)
    return content


def require_tensors(content: bytes) -> None:
    """Refuse bytes that are no safetensors file.

    Raises:
        WeightsError: they are not.
    """
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightsError(f"The weights that came are no safetensors file ({error}).") from error
