"""The hand-out of a released model, after a run: the coordinator gives it to the hospitals that took part.

    request   config: ConfigRecord    the fields of `Task`
              model: ArrayRecord      one array of bytes a file: MANIFEST, its signature, and what the manifest lists
    reply     metrics, site           as after a failure: `error` is "" where the site keeps the model now, else why it does not

The manifest names study, version and the SHA-256 of every other file; the release key signs it. The bytes are data: they are
hashed and stored, and read as tensors or text by whoever uses them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from common.errors import FederationError
from common.messages.round import Task, unpack_array, write_task

MODEL = "model"  # name of the record
FORMAT = "fedmri-model-1"
MANIFEST, SIGNATURE = "MANIFEST.json", "MANIFEST.json.minisig"
CARD = "MODEL_CARD.md"
CONTENT = ("model.safetensors", "calibration.safetensors", CARD)  # that a manifest may list; the second may be absent
SITES = "sites.json"  # at the coordinator, beside these files: to whom they go
MAX_BYTES = 32_000_000  # all files together: adapters and head have a few MB; merged models go by file
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
LATEST = "latest"  # no version is called so


@dataclass(frozen=True)
class Manifest:
    """What is signed."""

    study: str
    version: str
    released: str  # ISO 8601, UTC
    files: dict[str, str]  # name -> SHA-256
    format: str = FORMAT

    def __post_init__(self) -> None:
        for name in (self.study, self.version):
            if not re.fullmatch(NAME, name) or name == LATEST:
                raise FederationError(
                    f"Released model {name[:80]!r}: expected 1 to 64 letters, digits, '.', '_' or '-', and not {LATEST!r}."
                )


def write_manifest(manifest: Manifest) -> bytes:
    """As it is signed."""
    return (json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n").encode()


def read_manifest(content: bytes) -> Manifest:
    """A manifest; its signature is the caller's to check, before.

    Raises:
        FederationError: it is none.
    """
    try:
        found = Manifest(**json.loads(content))
        listed = set(found.files)
        good = found.format == FORMAT and {CONTENT[0], CARD} <= listed <= set(CONTENT)
        good = good and all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in found.files.values())
        good = good and all(isinstance(text, str) and len(text) <= 64 for text in (found.released, found.version))
    except (ValueError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise FederationError(f"{MANIFEST}: expected the list of a released model ({FORMAT}). Another version of FedMRI made it?")
    return found


def require_files(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Hold files to their manifest.

    Raises:
        FederationError: names the file that is missing, changed, or not listed.
    """
    for name in sorted(files.keys() - {MANIFEST, SIGNATURE} - manifest.files.keys()):
        raise FederationError(f"{name}: not in the manifest of {manifest.study}/{manifest.version}.")
    for name, sha256 in manifest.files.items():
        if name not in files:
            raise FederationError(f"{name} of {manifest.study}/{manifest.version}: missing.")
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise FederationError(f"{name} of {manifest.study}/{manifest.version}: changed since it was signed.")


def write_hand_out(task: Task, files: Mapping[str, bytes]) -> RecordDict:
    """The request."""
    asked = write_task(task, None)
    asked[MODEL] = ArrayRecord({name: Array(np.frombuffer(content, np.uint8)) for name, content in sorted(files.items())})
    return asked


def read_hand_out(asked: RecordDict) -> dict[str, bytes]:
    """The files that a request carries, by name.

    Raises:
        FederationError: other names than a model has, or too many bytes.
    """
    record = asked.get(MODEL)
    if not isinstance(record, ArrayRecord) or not {MANIFEST, SIGNATURE} <= set(record) <= {MANIFEST, SIGNATURE, *CONTENT}:
        raise FederationError("The hand-out of a model holds something else.")
    shapes = {name: tuple(int(size) for size in array.shape) for name, array in record.items()}
    if any(len(shape) != 1 or shape[0] < 0 for shape in shapes.values()) or sum(s[0] for s in shapes.values()) > MAX_BYTES:
        raise FederationError(f"The hand-out of a model has shapes {shapes}; at most {MAX_BYTES} bytes are taken.")
    return {name: unpack_array(name, array, shapes[name], "|u1").tobytes() for name, array in record.items()}
