"""A site's patients as arrays, ready for batches.

Shapes: N patients of a site, B of a batch, S slices, s of them, M modalities, H = W pixels, Q clinical covariates.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from common.data.gate.finding import Finding
from common.data.rows import Rows

WHOLE = 255  # a pixel of `SiteData.lesions` that is tumour all over

Indices = Sequence[int] | npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Some patients as tensors: copies, free to be changed.

    Attributes:
        x: float32 [B, S, M, H, W].
        present: bool [B, M].
        labels: int64 [B], -1 where there is none.
        covariates: float32 [B, Q], NaN where one is missing.
        lesions: float32 [B, S, H, W], the part of each pixel that is tumour, zeros without a mask; None: not asked for.
        mirrors: bool [B, S], in which images a mirrored patient is mirrored (`common.config.axes.Axis`); None: in all.
    """

    x: torch.Tensor
    present: torch.Tensor
    labels: torch.Tensor
    covariates: torch.Tensor
    mirrors: torch.Tensor | None = None
    lesions: torch.Tensor | None = None


def _no_covariates() -> npt.NDArray[np.float32]:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class SiteData:
    """All patients of one site, or of several pooled. `images` may be memory-mapped; nothing here writes to or copies it."""

    name: str
    ids: tuple[str, ...]
    images: npt.NDArray[np.float16] | Rows  # [N, S, M, H, W], 0 where a modality is absent
    present: npt.NDArray[np.bool_]  # [N, M], in the order of the run's `data.modalities`
    labels: npt.NDArray[np.int64]  # [N], as the task has them (a class, findings of `common.ternary`), -1 where there is none
    key: str  # hash of the sources and settings that the images came from
    covariates: npt.NDArray[np.float32] = field(default_factory=_no_covariates)  # [N, Q], NaN where missing; Q = 0: none
    lesions: npt.NDArray[np.uint8] | None = None  # [N, S, H, W], `common.data.lesions`; None: nobody asked for them
    findings: tuple[Finding, ...] = ()  # of the whole site, as `open_site` made them; those of patients who stay out, too
    sources: tuple[str, ...] = ()  # [N], a hash over each patient's files; (): not known
    folder: Path | None = None  # the cache, where what is computed of these patients may be kept too; None: nowhere

    def __post_init__(self) -> None:
        if not self.covariates.shape[1]:
            object.__setattr__(self, "covariates", np.empty((len(self.ids), 0), np.float32))
        sizes = {len(self.ids), len(self.images), len(self.present), len(self.labels), len(self.covariates)}
        if len(sizes) != 1 or self.images.ndim != 5 or self.present.shape[1:] != self.images.shape[2:3]:
            raise ValueError(
                f"Site {self.name}: ids, images {self.images.shape}, present {self.present.shape}, "
                f"labels {self.labels.shape} and covariates {self.covariates.shape} do not belong together."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """Indices of the labelled patients."""
        return np.flatnonzero(self.labels >= 0)

    def known_of_nobody(self, names: Sequence[str]) -> list[str]:
        """Those of the covariates (their names, in the order of the columns) that no patient here has."""
        return [name for name, column in zip(names, self.covariates.T, strict=True) if np.isnan(column).all()]

    def take(self, indices: Indices, *, slices: npt.NDArray[np.int64] | None = None, lesions: bool = False) -> Batch:
        """Read a batch.

        Args:
            indices: [B], of the patients.
            slices: [B, s], those of each patient that are read; None: all.
            lesions: whether the tumours of masks come too, where they are known.
        """
        rows = np.asarray(indices, dtype=np.int64)
        number = self.images.shape[1] if slices is None else slices.shape[1]
        x = np.empty((len(rows), number, *self.images.shape[2:]), np.float32)
        for to, row in enumerate(rows):
            x[to] = self.images[row] if slices is None else self.images[row][slices[to]]
        marked = self.lesions[rows] if lesions and self.lesions is not None else None
        if marked is not None and slices is not None:
            marked = np.take_along_axis(marked, slices[:, :, None, None], axis=1)
        return Batch(
            x=torch.from_numpy(x),
            present=torch.from_numpy(self.present[rows]),
            labels=torch.from_numpy(self.labels[rows]),
            covariates=torch.from_numpy(self.covariates[rows]),
            lesions=None if marked is None else torch.from_numpy(marked.astype(np.float32) / WHOLE),
        )

    def select(self, indices: Indices) -> "SiteData":
        """Some of the patients, in the given order; their images stay where they are."""
        rows = np.asarray(indices, dtype=np.int64)
        ids = tuple(self.ids[row] for row in rows)
        key = hashlib.sha256(f"{self.key} {rows.tolist()}".encode()).hexdigest()
        lesions = None if self.lesions is None else self.lesions[rows]
        arrays = (Rows.of([self.images]).select(rows), self.present[rows], self.labels[rows])
        sources = tuple(self.sources[row] for row in rows) if self.sources else ()
        return SiteData(self.name, ids, *arrays, key, self.covariates[rows], lesions, sources=sources, folder=self.folder)

    def without_covariates(self) -> "SiteData":
        """The same patients as if nothing were known of them but their images."""
        return replace(self, covariates=np.full_like(self.covariates, np.nan))

    @staticmethod
    def pool(sites: Sequence["SiteData"], name: str) -> "SiteData":
        """The patients of several sites as one, in the given order; ids become `site/id`; images stay where they are.

        Raises:
            ValueError: no sites, or images of different shapes.
        """
        if not sites or len({site.images.shape[1:] for site in sites}) != 1:
            shapes = sorted({site.images.shape[1:] for site in sites})
            raise ValueError(f"Pool {name}: expected sites with images of one shape, got {shapes}.")
        lesions = [site.lesions for site in sites if site.lesions is not None]
        return SiteData(
            name,
            tuple(f"{site.name}/{patient}" for site in sites for patient in site.ids),
            Rows.of([site.images for site in sites]),
            np.concatenate([site.present for site in sites]),
            np.concatenate([site.labels for site in sites]),
            hashlib.sha256(" ".join(site.key for site in sites).encode()).hexdigest(),
            np.concatenate([site.covariates for site in sites]),
            np.concatenate(lesions) if len(lesions) == len(sites) else None,
            folder=sites[0].folder,
        )
