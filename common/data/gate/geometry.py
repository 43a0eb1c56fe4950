"""Where images lie: rules about grids, orientation and overlap."""

from collections.abc import Iterator

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.images import Images
from common.data.volumes import Volume

THICK = 2.0  # an axis is thick when its voxels are this much longer than the others

COARSE = Kind("slices-not-axial", Level.WARNING, "thick slices of another orientation, which axial images show coarsely")
KINDS = (COARSE,)


def coarse(images: Images) -> Iterator[Finding]:
    """Thick slices that are not axial."""
    for name, volume in images.volumes.items():
        thickness = sorted(volume.spacing)
        if thickness[2] > THICK * thickness[1] and max(volume.spacing) != volume.spacing[2]:
            found = f"has thick slices that are not axial ({mm(volume)} mm)"
            yield images.finding(COARSE, name, found, "axial or 3D images", "Use an axial or a 3D series where there is one.")


def mm(volume: Volume) -> str:
    """Voxel sizes in words."""
    return " x ".join(f"{length:.3g}" for length in volume.spacing)


def grid(volume: Volume) -> str:
    """Voxels and their sizes in words."""
    return f"{' x '.join(str(n) for n in volume.voxels.shape)} voxels of {mm(volume)} mm"
