"""Tokens of the frozen backbone for one window of every patient, kept on the disk: what `bench/pooling.py` pools.

A window is an axis, a field of view, a shift from the tumour's middle, and whether the mask may be seen. S slices (the most that
any count asks for), M modalities, P patches, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.cases import Case
from common.data.gate.patient import read_patient
from common.data.planes import choose_plane, turned
from common.data.slices import scaled_slab
from common.data.volumes import Mask, Volume, crop_slices, foreground
from common.models.multimodal import MultiModalViT
from common.training.device import autocast


@dataclass(frozen=True)
class Window:
    """Which squares are cut.

    Attributes:
        field_of_view: mm.
        counts: numbers of slices that are wanted.
        axis: of `common.config.axes.AXES`.
        shift: mm, the radius of the disc from which the window's middle is drawn around the tumour's.
        seed: of the shift.
        masked: whether the tumour's mask says where the slices go.
    """

    field_of_view: float
    counts: tuple[int, ...] = (5,)
    axis: str = "axial"
    shift: float = 0.0
    seed: int = 0
    masked: bool = True

    @property
    def name(self) -> str:
        """Of its files."""
        seen = "mask" if self.masked else "none"
        return f"{self.axis}-{self.field_of_view:g}-{max(self.counts)}-{seen}-{self.shift:g}-{self.seed}"


@dataclass(frozen=True, eq=False)
class Tokens:
    """One patient in one window."""

    cls: NDArray[np.float32]  # [S, M, D]
    patches: NDArray[np.float32]  # [S, M, P, D]
    lesion: NDArray[np.float32]  # [S, P], the part of the patch that is tumour
    present: Mask  # [M]
    places: dict[int, list[int]]  # count -> which of the S slices


def patient_tokens(
    case: Case, windows: Sequence[Window], model: MultiModalViT, config: RunConfig, kept: Path
) -> Iterator[Tokens]:
    """The patient's tokens in each window; from `kept` where they are there."""
    volumes: dict[str, Volume] = {}
    for window in windows:
        file = kept / window.name / f"{case.root.name}-{case.id}.npz"
        if not file.is_file():
            volumes = volumes or _load(case, config)
            file.parent.mkdir(parents=True, exist_ok=True)
            found = _tokens(case, volumes, window, model, config)
            np.savez(file.with_suffix(".tmp.npz"), allow_pickle=False, **found)
            file.with_suffix(".tmp.npz").rename(file)
        with np.load(file) as f:
            places = {c: f[f"places{c}"].tolist() for c in window.counts}
            cls, patches, lesion = (f[key].astype(np.float32) for key in ("cls", "patches", "lesion"))
            yield Tokens(cls, patches, lesion, f["present"], places)


def _load(case: Case, config: RunConfig) -> dict[str, Volume]:
    """The modalities, scaled, and the mask, all on the first one's grid."""
    read = read_patient(case, config.data)
    scaled = {}
    for m, there in read.volumes.items():
        scaled[m] = Volume(scaled_slab(there, m, np.arange(there.voxels.shape[2]), config.data), there.affine)
    mask = read.region if read.tumour else np.zeros_like(read.region)
    brain = foreground(read.reference.voxels)
    return scaled | {kind: Volume(v.astype(np.float32), read.reference.affine) for kind, v in (("mask", mask), ("brain", brain))}


def _tokens(
    case: Case, volumes: dict[str, Volume], window: Window, model: MultiModalViT, config: RunConfig
) -> dict[str, NDArray[Any]]:
    tumour = window.masked and bool(volumes["mask"].voxels.any())
    region = volumes["mask" if tumour else "brain"]
    planes = {c: choose_plane(region.voxels > 0, region, window.axis, c, tumour=tumour) for c in window.counts}
    chosen = {c: plane.indices for c, plane in planes.items()}
    rows = np.unique(np.concatenate(list(chosen.values())))
    middle = _shifted(planes[window.counts[0]].centre, window, case.id)
    size, p, modalities = config.data.size, model.patch_size, config.data.modalities

    def cut(volume: Volume) -> NDArray[np.float32]:
        return (
            crop_slices(turned(volume, window.axis), rows, middle, window.field_of_view, size)
            .astype(np.float16)
            .astype(np.float32)
        )

    S, M, P, D = len(rows), len(modalities), (size // p) ** 2, model.width
    cls, patches = np.zeros((S, M, D)), np.zeros((S, M, P, D))
    for m, name in enumerate(modalities):
        if name in volumes:
            images = cut(volumes[name])
            with torch.inference_mode(), autocast(torch.device("cpu"), config.training.precision):
                z = model.backbone.features(model.pixels(torch.from_numpy(images))).float().numpy()
            cls[:, m], patches[:, m] = z[:, 0], z[:, model.backbone.prefixes :]
    present = np.array([m in volumes for m in modalities])
    places = {f"places{c}": np.searchsorted(rows, picked) for c, picked in chosen.items()}
    lesion = cut(volumes["mask"]).reshape(S, size // p, p, size // p, p).mean((2, 4)).reshape(S, P)
    half = {"cls": cls, "patches": patches, "lesion": lesion}
    return {**{name: np.asarray(value, np.float16) for name, value in half.items()}, "present": present, **places}


def _shifted(middle: tuple[float, float], window: Window, patient: str) -> tuple[float, float]:
    """Uniform in a disc, from the seed and the patient alone."""
    seed = int.from_bytes(sha256(f"{window.seed} {patient}".encode()).digest()[:8], "big")
    radius, angle = np.random.default_rng(seed).random(2)
    reach = window.shift * np.sqrt(radius)
    return middle[0] + reach * np.cos(2 * np.pi * angle), middle[1] + reach * np.sin(2 * np.pi * angle)
