"""The modalities, one row each: finding, naming, scaling and simulating one all read this table; a new one is a new row."""

from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT_MODALITIES = ("t1", "t1c", "t2", "flair")
MASK = "mask"
MASKS = tuple(f"**/*{word}*mask.nii*" for word in ("tumour", "tumor", "lesion", "seg"))
FilePatterns = dict[str, tuple[str, ...]]
"""A modality, or `mask`, to globs relative to a patient's folder; () for what the site does not have."""
PICTURES = tuple(
    f"**/*.{end}" for end in ("[Pp][Nn][Gg]", "[Jj][Pp][Gg]", "[Jj][Pp][Ee][Gg]", "[Dd][Cc][Mm]", "[Dd][Ii][Cc][Oo][Mm]")
)
NAMINGS = ("bids", "bids_flat", "brats", "brats_2023")  # how files are named where no site.toml says it


@dataclass(frozen=True)
class Quantity:
    """The intensity rule of a map of a physical quantity: a fixed window, so that equal tissue is equally bright at every site.

    Attributes:
        low, high: become 0 and 1.
        typical: median over a brain, by which the power of ten that a file multiplies with is told.
    """

    low: float
    high: float
    typical: float


@dataclass(frozen=True)
class Modality:
    """One row.

    Attributes:
        name: in configurations, `site.toml`, reports and array order.
        title: above pictures.
        suffix: end of a BIDS file name that is written, entities included.
        pattern: glob of the end of a BIDS file name that is read.
        folders: BIDS folders of a patient that hold it; it is written to the first.
        brats: end of a file name in BraTS, to 2021 and from 2023.
        aliases: further words for it on the command line.
        unlike: modalities whose files are never taken for this one, though its pattern matches them.
        picture: no MRI: a PNG, JPEG or DICOM file of any name, read as one slice (`common.data.gate.pictures`).
        quantity: fixed intensity window; None: percentiles of the volume's foreground (`data.low_percentile`, `high_percentile`).
            Background of both is what lies below 5% of the brightest (`common.data.volumes.foreground`).
    """

    name: str
    title: str
    suffix: str
    pattern: str
    brats: tuple[str, str]
    folders: tuple[str, ...] = ("anat",)
    aliases: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    quantity: Quantity | None = None
    picture: bool = False

    def globs(self, naming: str) -> tuple[str, ...]:
        """Patterns relative to a patient's folder, in one of `NAMINGS`, or of BIDS names in any folder (`anywhere`)."""
        if self.picture:
            return PICTURES
        return {
            "bids": tuple(f"**/{folder}/*_{self.pattern}.nii*" for folder in self.folders),
            "bids_flat": (f"*_{self.pattern}.nii*",),
            "anywhere": (f"**/*_{self.pattern}.nii*",),
            "brats": (f"*{self.brats[0]}.nii*",),
            "brats_2023": (f"*-{self.brats[1]}.nii*",),
        }[naming]


ADC = Quantity(0.0, 3.0e-3, 0.9e-3)  # mm^2/s, from no diffusion to that of free water at 37 degrees Celsius
ROWS = (
    Modality("t1", "T1", "T1w", "T1w", ("t1", "t1n"), unlike=("t1c",)),  # in BIDS the contrast image is a T1w as well
    Modality("t1c", "T1 + gadolinium", "ce-gadolinium_T1w", "ce-*_T1w", ("t1ce", "t1c"), aliases=("t1ce", "t1gd")),
    Modality("t2", "T2", "T2w", "T2w", ("t2", "t2w")),
    Modality("flair", "FLAIR", "FLAIR", "FLAIR", ("flair", "t2f")),
    # The apparent diffusion coefficient, which scanners compute from DWI. Since BIDS 1.11 `dwi/*_ADC` is raw data; before, and
    # from dcm2niix, it is named alike, in either case. The weighted images themselves (`_dwi`) are another thing.
    Modality("adc", "ADC", "ADC", "[Aa][Dd][Cc]", ("adc", "adc"), folders=("dwi", "anat"), quantity=ADC),
    Modality("image", "Image", "image", "image", ("image", "image"), picture=True),  # X-ray, fundus, skin: one picture a patient
)
MODALITIES = {row.name: row for row in ROWS}


def on_pictures(modalities: Iterable[str]) -> bool:
    """Whether any of them is of pictures, and not of MRI; names that the table lacks are not."""
    return any(name in MODALITIES and MODALITIES[name].picture for name in modalities)


def looked_for(modalities: Iterable[str]) -> tuple[str, ...]:
    """The modalities whose files are looked for at a site: the default four, and what the run names, in the table's order.

    So files of a modality that no run here ever named disturb none: they are not searched, hashed or called ambiguous.
    """
    wanted = {*DEFAULT_MODALITIES, *modalities}
    return tuple(name for name in MODALITIES if name in wanted)


def file_patterns(naming: str = "bids") -> dict[str, tuple[str, ...]]:
    """Globs of every modality's files, relative to a patient's folder, in one of `NAMINGS`."""
    return {name: row.globs(naming) for name, row in MODALITIES.items()}
