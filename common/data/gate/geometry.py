"""Where images lie: rules about what headers say of place, orientation and size.

An affine here is that of the stored axes, in mm, unless it says otherwise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from common.data.gate.finding import Finding, Kind, Level
from common.data.gate.images import Images
from common.data.volumes import Header, Volume, foreground

Affine = npt.NDArray[np.float64]
THICK = 2.0  # an axis is thick when its voxels are this much longer than the others
CLOSE = 0.5  # mm between the corners of two grids that are called one: headers round
SIZES = 0.01  # relative difference of voxel sizes that rounding does not explain
SHEAR = 0.5  # degrees that an affine's axes lie off the right angle, which rounding does not explain
SMALLEST, LARGEST = 5.0, 1000.0  # mm that the longest edge of an image of a head lies between, whatever was cut away
HEAD, FINEST = 52.0, 0.3  # mm: an image shorter than the one, of voxels finer than the other, is a whole head told in centimetres
CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])

COARSE = Kind("slices-not-axial", Level.WARNING, "thick slices of another orientation, which axial images show coarsely")
FORMS = Kind(
    "sform-qform-differ", Level.WARNING, "sform and qform put the image in two places; an error where the qform fits the others"
)
NO_CODES = Kind("orientation-unknown", Level.WARNING, "neither sform nor qform: tools guess the orientation, and not all alike")
PIXDIM = Kind("pixdim-differs", Level.WARNING, "voxel sizes in pixdim that are not those of the affine, which is used")
SHEARED = Kind("affine-sheared", Level.WARNING, "an affine whose axes do not stand square on each other (a tilted gantry)")
ONE_SLICE = Kind("image-one-slice", Level.WARNING, "an image of a single slice")
EXTENT = Kind("size-implausible", Level.ERROR, "an image far too small or too large for a head: its unit is wrong")
ELSEWHERE = Kind("image-elsewhere", Level.ERROR, "a modality that shares no place with the first modality's head")
OTHER_READING = Kind(
    "image-other-reading", Level.ERROR, "a modality on the grid that another tool reads out of an ambiguous header"
)
BY_VOXELS = Kind(
    "placed-by-voxels", Level.NOTE, "reading.place in site.toml puts an image or a mask on the voxels of the first modality"
)
TRANSPOSED = Kind("axes-exchanged", Level.ERROR, "an array whose axes were exchanged and whose affine was not")
KINDS = (COARSE, FORMS, NO_CODES, PIXDIM, SHEARED, ONE_SLICE, EXTENT, ELSEWHERE, TRANSPOSED, OTHER_READING, BY_VOXELS)
SAVE = "Write the right affine into both (qform and sform), for instance by converting or registering anew."
ASK = (
    'Save it with the image\'s own affine; or, where masks and images of this site belong voxel to voxel, set place = "voxels" '
    "under [reading] in site.toml."
)


def coarse(images: Images) -> Iterator[Finding]:
    """Thick slices that are not axial."""
    for name, volume in images.volumes.items():
        thickness = sorted(volume.spacing)
        if thickness[2] > THICK * thickness[1] and max(volume.spacing) != volume.spacing[2]:
            found = f"has thick slices that are not axial ({mm(volume)} mm)"
            yield images.finding(COARSE, name, found, "axial or 3D images", "Use an axial or a 3D series where there is one.")


def forms(images: Images) -> Iterator[Finding]:
    """Two statements of one header about its place."""
    for name, volume in images.everything().items():
        header = volume.header
        if header is None or header.qform is None or header.sform is None:
            continue
        shape = stored_shape(volume)
        if distance(header.qform, header.sform, shape) <= CLOSE:
            continue
        others = [other for kind, other in images.volumes.items() if kind != name]
        q, s = (any(on_grid(affine, shape, other) for other in others) for affine in (header.qform, header.sform))
        wrong = q and not s and not images.by_voxels
        used = "the sform, which is used, lies off the grid of the others, and the qform on it" if wrong else "the sform is used"
        codes = f"qform (code {header.qform_code}) and sform (code {header.sform_code})"
        found = f"{codes} differ by {apart(header.qform, header.sform, shape)}; {used}"
        found = f"{found}. qform {words(header.qform)}; sform {words(header.sform)}"
        yield images.finding(FORMS, name, found, "one place", SAVE, level=Level.ERROR if wrong else None)


def no_codes(images: Images) -> Iterator[Finding]:
    """Headers that know no orientation."""
    for name, volume in images.volumes.items():
        header = volume.header
        if header is not None and not header.qform_code and not header.sform_code:
            found = (
                f"{header.form} without orientation (both codes are 0); read as left, anterior, superior, with its middle at 0"
            )
            expected = (
                "an sform or a qform, for other tools read left, posterior, superior (ITK), and front and back may be swapped"
            )
            yield images.finding(NO_CODES, name, found, expected, "Look at a slice, and write the orientation into the header.")


def pixdims(images: Images) -> Iterator[Finding]:
    """Voxel sizes that are said twice, and differently."""
    for name, volume in images.everything().items():
        header = volume.header
        if header is None or header.sform is None or shear(header.affine) > SHEAR:
            continue  # what is sheared has longer edges than pixdim can say: `sheared` tells it
        said, used = np.array(header.pixdim) * header.unit, lengths(header.affine)
        if (np.abs(said - used) > SIZES * used).any():
            affine = f"the affine (sform, code {header.sform_code}) {sizes(used)} mm"
            found = f"pixdim says voxels of {sizes(said)} mm, {affine}; the affine is used"
            yield images.finding(PIXDIM, name, found, "one size", SAVE)


def sheared(images: Images) -> Iterator[Finding]:
    """Axes that are not square: tools that know rotations alone straighten them, each in its way."""
    for name, volume in images.everything().items():
        if volume.header is not None and (angle := shear(volume.header.affine)) > SHEAR:
            found = f"the affine is sheared: two of its axes lie {angle:.3g} degrees off the right angle; it is read as it stands"
            do = "Resample it to a straight grid, with a tool that knows shear (the slices of a tilted gantry are shifted)."
            yield images.finding(SHEARED, name, found, "axes that are square to each other", do)


def shear(affine: Affine) -> float:
    """The largest deviation of two axes from the right angle, in degrees."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs((axes.T @ axes)[np.triu_indices(3, 1)])
    return float(np.degrees(np.arcsin(min(1.0, float(cosines.max())))))


def one_slice(images: Images) -> Iterator[Finding]:
    """Images that are no volume."""
    for name, volume in images.volumes.items():
        if min(volume.voxels.shape) == 1:
            found = f"holds one slice ({grid(volume)}), which is all that the model sees of it"
            yield images.finding(ONE_SLICE, name, found, "a volume", "Convert the whole series, not one of its images.")


def extent(images: Images) -> Iterator[Finding]:
    """Heads of a millimetre, of a couple of centimetres, and of a mile."""
    for name, volume in images.volumes.items():
        longest = max(n * length for n, length in zip(volume.voxels.shape, volume.spacing, strict=True))
        tenth = longest < HEAD and min(volume.spacing) < FINEST
        if tenth or not SMALLEST <= longest <= LARGEST:
            found = f"its longest edge is {longest:.3g} mm ({grid(volume)})" + ("; are these centimetres?" if tenth else "")
            yield images.finding(EXTENT, name, found, "a head, in mm", "Write voxel sizes in mm, or the right unit (xyzt_units).")


def elsewhere(images: Images) -> Iterator[Finding]:
    """Modalities that the first one's head does not meet."""
    reference = images.reference
    head: npt.NDArray[Any] | None = None
    for name, volume in images.volumes.items():
        if volume.same_grid(reference):
            continue
        if head is None:
            head = np.argwhere(foreground(reference.voxels[::2, ::2, ::2])) * 2
        if head.size and not inside(head, reference.affine, volume).any():
            middles = f"middle {_middle(volume)} mm, there {_middle(reference)} mm"
            found = f"none of it lies on the head of {images.files[images.first]} ({middles})"
            yield images.finding(ELSEWHERE, name, found, "images of one head, registered to each other", SAVE)


def transposed(images: Images) -> Iterator[Finding]:
    """Arrays in other axes than those of an image that has the same affine: saved with the header of that image."""
    kept = images.volumes
    for name, volume in list(images.everything().items())[1:]:
        twin = next((other for other, image in kept.items() if other != name and _exchanged(volume, image)), None)
        if twin:
            shapes = [" x ".join(map(str, stored_shape(one))) for one in (volume, kept[twin])]
            found = f"has {shapes[0]} voxels, {images.files[twin]} has {shapes[1]}, and the affine of both is the same"
            yield images.finding(TRANSPOSED, name, f"{found}: its axes were exchanged", "the image's order of axes", SAVE)


def _exchanged(one: Volume, other: Volume) -> bool:
    if one.header is None or other.header is None:
        return False
    shapes = stored_shape(one), stored_shape(other)
    same = shapes[0] != shapes[1] and sorted(shapes[0]) == sorted(shapes[1])
    return same and distance(one.header.affine, other.header.affine, shapes[1]) <= CLOSE


def settled(images: Images) -> tuple[Images, list[Finding]]:
    """Modalities that lie on the first one's voxels by another reading of its header are put there, where the site says so."""
    findings, placed = [], {}
    for name, volume in images.volumes.items():
        placed[name] = volume
        why = misread(volume, images.reference)
        if why and images.by_voxels:
            placed[name] = on_voxels(volume, images.reference)
            findings.append(
                images.finding(BY_VOXELS, name, f"{why}; used voxel by voxel", "one place", "Nothing, if that is right.")
            )
        elif why and not _says_two(volume):  # then `forms` has said it
            findings.append(images.finding(OTHER_READING, name, why, "one place", ASK))
    return replace(images, volumes=placed), findings


def _says_two(volume: Volume) -> bool:
    header = volume.header
    if header is None or header.qform is None or header.sform is None:
        return False
    return distance(header.qform, header.sform, stored_shape(volume)) > CLOSE


def misread(volume: Volume, image: Volume) -> str:
    """Why a volume lies on an image's voxels by a reading of one of the two headers that is not ours; "" where it does not."""
    if volume.header is None or image.header is None or stored_shape(volume) != stored_shape(image):
        return ""
    mine, its, shape = volume.header.affine, image.header.affine, stored_shape(image)
    if distance(mine, its, shape) <= CLOSE:
        return ""
    for who, header, other in (("the image's", image.header, mine), ("its own", volume.header, its)):
        for how, affine in other_readings(header).items():
            if distance(affine, other, shape) <= CLOSE:
                return f"lies where {who} header is read {how}, {apart(mine, its, shape)} from where it is read here"
    return ""


def other_readings(header: Header) -> Mapping[str, Affine]:
    """Affines that other tools read out of a header that leaves a choice."""
    found: dict[str, Affine] = {}
    if header.qform is not None and header.sform is not None:
        found["by its qform, as ITK does"] = header.qform
        found["by its sform"] = header.sform
    if not header.qform_code and not header.sform_code:
        x, y, z = (length * header.unit for length in header.pixdim)
        found["as left, posterior, superior from voxel 0, as ITK does"] = np.diag([-x, -y, z, 1.0])
        found["as right, anterior, superior from voxel 0"] = np.diag([x, y, z, 1.0])
    return {how: affine for how, affine in found.items() if not np.array_equal(affine, header.affine)}


def on_voxels(volume: Volume, image: Volume) -> Volume:
    """A volume on the grid of an image that was stored with the same axes."""
    assert volume.header is not None  # whoever asks has compared both headers
    assert image.header is not None
    turns, back = io_orientation(volume.header.affine), io_orientation(image.header.affine)
    stored = apply_orientation(volume.voxels, ornt_transform(CANONICAL, turns))
    return replace(volume, voxels=np.array(apply_orientation(stored, back), np.float32, order="K"), affine=image.affine)


def stored_shape(volume: Volume) -> tuple[int, ...]:
    """Of the stored axes, without trailing ones."""
    assert volume.header is not None  # of what was computed nobody asks
    return volume.header.shape[:3]


def on_grid(affine: Affine, shape: tuple[int, ...], image: Volume) -> bool:
    """Whether voxels of that shape and affine are those of the image."""
    if image.header is None or stored_shape(image) != shape:
        return False
    return distance(affine, image.header.affine, shape) <= CLOSE


def distance(one: Affine, two: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between corresponding corners, in mm."""
    ends = np.array([[x, y, z, 1] for x in (0, shape[0] - 1) for y in (0, shape[1] - 1) for z in (0, shape[2] - 1)], np.float64)
    return float(np.linalg.norm((ends @ (one - two).T)[:, :3], axis=1).max())


def apart(one: Affine, two: Affine, shape: tuple[int, ...]) -> str:
    """How far two affines lie apart, in words."""
    middle = np.array([*((n - 1) / 2 for n in shape), 1.0])
    moved = float(np.linalg.norm(((one - two) @ middle)[:3]))
    return f"{moved:.3g} mm at the middle ({distance(one, two, shape):.3g} mm at the corners) and {_turn(one, two):.3g} degrees"


def _turn(one: Affine, two: Affine) -> float:
    """The angle of the rotation between two affines, in degrees; a mirrored axis counts as 180."""
    u, _, vt = np.linalg.svd(np.linalg.solve(two[:3, :3].T, one[:3, :3].T))
    rotation = u @ vt
    if np.linalg.det(rotation) < 0:
        return 180.0
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def inside(points: npt.NDArray[Any], affine: Affine, volume: Volume) -> npt.NDArray[np.bool_]:
    """Which voxels [N, 3] of a grid in RAS have a place within the volume, [N]."""
    to = np.linalg.inv(volume.affine) @ affine
    places = points @ to[:3, :3].T + to[:3, 3]
    return np.asarray(((places >= -0.01) & (places <= np.array(volume.voxels.shape) - 0.99)).all(axis=1))


def lengths(affine: Affine) -> npt.NDArray[np.float64]:
    """Edge lengths of a voxel."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0), np.float64)


def sizes(edges: npt.NDArray[np.float64]) -> str:
    """Edge lengths in words."""
    return " x ".join(f"{length:.4g}" for length in edges)


def words(affine: Affine) -> str:
    """An affine in words: its three rows."""
    return "[" + "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3]) + "]"


def _middle(volume: Volume) -> str:
    x, y, z = (volume.affine @ [*((n - 1) / 2 for n in volume.voxels.shape), 1.0])[:3]
    return f"({x:.0f}, {y:.0f}, {z:.0f})"


def mm(volume: Volume) -> str:
    """Voxel sizes in words."""
    return " x ".join(f"{length:.3g}" for length in volume.spacing)


def grid(volume: Volume) -> str:
    """Voxels and their sizes in words."""
    return f"{' x '.join(str(n) for n in volume.voxels.shape)} voxels of {mm(volume)} mm"
