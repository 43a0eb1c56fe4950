"""What the rules of the gate look at: one patient's images as they were read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.data.gate.finding import Finding, Kind, Level
from common.data.volumes import Volume

MASK = "mask"


@dataclass(frozen=True, eq=False)
class Images:
    """One patient's images, of the run's modalities alone.

    Attributes:
        volumes: by modality, in the run's order; the first one's grid is the one that slices are cut from.
        mask: the tumour's, where there is one.
        files: names of the files by modality, and of `mask`, as findings have them.
        by_voxels: the site says that images and masks of one shape belong voxel to voxel, wherever headers put them.
    """

    volumes: Mapping[str, Volume]
    mask: Volume | None
    files: Mapping[str, str]
    by_voxels: bool = False

    @property
    def reference(self) -> Volume:
        """The first modality."""
        return next(iter(self.volumes.values()))

    @property
    def first(self) -> str:
        """The first modality's name."""
        return next(iter(self.volumes))

    def everything(self) -> dict[str, Volume]:
        """Modalities, and the mask."""
        return {**self.volumes, **({MASK: self.mask} if self.mask is not None else {})}

    def finding(self, kind: Kind, of: str, found: str, expected: str, do: str, *, level: Level | None = None) -> Finding:
        """A finding about one of the files, `of` a modality or `mask`."""
        return kind.finding(found, expected, do, file=self.files[of], level=level)

    def finding_of(self, found: Finding, of: str) -> Finding:
        """A finding that does not know its file yet."""
        return replace(found, file=self.files[of])
