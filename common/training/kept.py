"""Embeddings that were computed before: by patient, and by what of the patient was seen.

Below the head nothing changes in head rounds, so an embedding is computed once: for all rounds, and for the pooled and local
baselines, whose patients and frozen arrays are the same. It is kept in memory and, beside the slice cache, in one file a patient:

CACHE/embeddings/IDENTITY/PATIENT.safetensors   IDENTITY: hash of code, backbone, arrays below the head, settings

A patient goes by the hash of the slices themselves. Files that are damaged are computed anew; folders of other identities are
deleted but for the newest few; everything may be deleted at any time. E width of an embedding.
"""

import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import common
from common.data.dataset import SiteData
from common.errors import WeightsError
from common.models.arrays import Arrays, arrays_sha256, load_arrays, save_arrays
from common.models.trained_model import TrainedModel
from common.training.device import choose_device
from common.training.trainable import CENTRE, HEAD

FOLDER = "embeddings"
IDENTITIES = 4  # folders that stay on the disk
MEMORY = 2**26  # bytes of embeddings that stay in this process

Vector = NDArray[np.float32]  # [E]

_memory: OrderedDict[tuple[str, str], Arrays] = OrderedDict()


class Kept:
    """The embeddings of a site's patients under one model, as far as they are known.

    Args:
        trained: of its arrays, those below the head count, without the mean features, which are taken off last.
        patients: N.

    Attributes:
        hashes: [N], by which the patients are known.
    """

    def __init__(self, trained: TrainedModel, patients: SiteData) -> None:
        device = choose_device()
        self._identity = _identity(trained, device)
        # On a GPU an embedding depends in its last bits on who else is in the batch, and costs little: not for the next process.
        self._folder = patients.folder / FOLDER / self._identity if patients.folder and device.type == "cpu" else None
        self.hashes = [patient_sha256(patients, row) for row in range(len(patients))]
        self._found = [self._recall(patient) for patient in self.hashes]

    def lacks(self, row: int, seen: str) -> bool:
        """Whether the embedding must be computed."""
        return seen not in self._found[row]

    def get(self, row: int, seen: str) -> Vector:
        """One that is there."""
        return self._found[row][seen]

    def add(self, found: Mapping[int, Mapping[str, Vector]]) -> None:
        """Keep embeddings by row and by what was seen."""
        for row, new in found.items():
            self._found[row] = self._found[row] | dict(new)
            _remember((self._identity, self.hashes[row]), self._found[row])
            if self._folder:
                self._write(self.hashes[row], self._found[row])
        if self._folder and found:
            _forget_others(self._folder)

    def _recall(self, patient: str) -> Arrays:
        """From memory, else from the disk; nothing where there is neither."""
        place = (self._identity, patient)
        if place in _memory:
            _memory.move_to_end(place)
            return _memory[place]
        found = _read(self._folder / f"{patient}.safetensors") if self._folder else {}
        if found:
            _remember(place, found)
        return found

    def _write(self, patient: str, found: Arrays) -> None:
        assert self._folder
        with suppress(OSError):  # a disk that is full costs time, not the round
            save_arrays(self._folder / f"{patient}.safetensors", found, {"sha256": arrays_sha256(found)})


def forget() -> None:
    """Let go of what this process remembers; the disk is left as it is."""
    _memory.clear()


def patient_sha256(patients: SiteData, row: int) -> str:
    """Hash of one patient's slices and of which modalities they are."""
    images = patients.images[row]
    digest = hashlib.sha256(f"{images.shape} {images.dtype} {patients.present[row].tolist()} ".encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()


def _identity(trained: TrainedModel, device: torch.device) -> str:
    """Hash of all that an embedding depends on, but the patient and what is seen of them."""
    config = trained.config
    below = {name: array for name, array in trained.arrays.items() if not name.startswith((HEAD, CENTRE))}
    settings = (config.model, config.federation.low_rank, config.data.modalities, config.training.precision)
    machine = (torch.__version__, device.type, torch.get_num_threads())
    text = f"{_code()} {trained.model.backbone_sha256} {arrays_sha256(below)} {settings} {machine}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _code() -> str:
    """Hash of the code: what an earlier version computed is not what this one would."""
    root, digest = Path(common.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _remember(place: tuple[str, str], found: Arrays) -> None:
    """In memory; what was not asked for longest goes."""
    _memory[place] = found
    _memory.move_to_end(place)
    while len(_memory) > 1 and sum(_size(arrays) for arrays in _memory.values()) > MEMORY:
        _memory.popitem(last=False)


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


def _read(path: Path) -> Arrays:
    """One patient's file; nothing where it is absent or not as it was written."""
    if not path.is_file():
        return {}
    try:
        found, metadata = load_arrays(path)
    except WeightsError:
        return {}
    return found if metadata.get("sha256") == arrays_sha256(found) else {}


def _forget_others(folder: Path) -> None:
    """Delete what belongs to other models, but for the newest few: other runs may be going on."""
    with suppress(OSError):
        os.utime(folder)
        folders = [path for path in folder.parent.iterdir() if path.is_dir()]
        for old in sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True)[IDENTITIES:]:
            shutil.rmtree(old, ignore_errors=True)
