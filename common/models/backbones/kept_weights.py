"""Frozen weights that are kept with a site: FOLDER/weights/SHA256.safetensors, told apart by their hash and by no name.

A bundle of code carries no weights, and a cache may be deleted at any time: what a run needs lies beside the site's settings.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from common.errors import WeightsError
from common.files import open_atomic, write_atomic
from common.models.backbones.weights import SHIPPED_FILES, file_sha256, find_weights, read_weights

FOLDER_NAME = "weights"
SUFFIXES = (".safetensors", ".pth")


@dataclass(frozen=True)
class KeptWeights:
    """One file.

    Attributes:
        sha256: what its bytes have; a run asks for it.
        path: whose name is the hash that was agreed.
        shipped: what `model.weights` calls it where FedMRI ships it; else "".
    """

    sha256: str
    path: Path
    shipped: str

    @property
    def sound(self) -> bool:
        """Whether its bytes are those that its name promises."""
        return self.path.stem == self.sha256


def kept_file(folder: Path, sha256: str) -> Path | None:
    """The file with this hash in its name, if `sha256` is one; whoever loads it compares the bytes."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        return None
    return next((file for suffix in SUFFIXES if (file := folder / f"{sha256}{suffix}").is_file()), None)


def kept_weights(folder: Path) -> list[KeptWeights]:
    """All that is there, in the order of the hashes."""
    shipped = {file_sha256(file): name for name, file in SHIPPED_FILES.items() if file.is_file()}
    files = sorted(file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}"))
    return [KeptWeights(sha256, file, shipped.get(sha256, "")) for file in files for sha256 in [file_sha256(file)]]


def keep_shipped(folder: Path) -> None:
    """Lay what FedMRI ships with beside the site, where it is absent or damaged. For installed code: a bundle has none to lay."""
    for file in SHIPPED_FILES.values():
        if file.is_file():
            copy = folder / f"{file_sha256(file)}{file.suffix}"
            if not copy.is_file() or file_sha256(copy) != copy.stem:
                write_atomic(copy, file.read_bytes())


def keep_file(folder: Path, source: Path) -> KeptWeights:
    """Take a file over; it is read first, and refused where it holds anything but tensors.

    Raises:
        WeightsError: it is not there, or no file of weights.
    """
    source = find_weights(str(source))
    if source.suffix not in SUFFIXES:
        raise WeightsError(f"{source}: expected a .safetensors or an official .pth file.")
    read_weights(source)
    sha256 = file_sha256(source)
    copy = folder / f"{sha256}{source.suffix}"
    with source.open("rb") as content, open_atomic(copy) as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if file_sha256(copy) != sha256:
        copy.unlink()
        raise WeightsError(f"{source} changed while it was copied. Try again.")
    return next(one for one in kept_weights(folder) if one.path == copy)


def keep_bytes(folder: Path, content: bytes, sha256: str) -> None:
    """Keep what came over a wire.

    Raises:
        WeightsError: other bytes than were agreed.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        text = f"SHA-256: agreed {sha256[:12]}, came {found[:12]}"
        raise WeightsError(f"The weights that came are not the agreed ones ({text}).")
    write_atomic(folder / f"{sha256}.safetensors", content)
