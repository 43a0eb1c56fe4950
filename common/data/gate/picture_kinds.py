"""What can be found about a picture, read from PNG, JPEG or DICOM."""

from common.data.gate.finding import Finding, Kind, Level, StaysOutError

NOT_READ = Kind(
    "picture-not-read", Level.ERROR, "a picture that is no PNG, JPEG or DICOM, is damaged, or is compressed as nothing here reads"
)
NO_PYDICOM = Kind("picture-no-pydicom", Level.ERROR, "a picture in DICOM where the `import` extra is not installed")
MOVING = Kind("picture-several", Level.ERROR, "several pictures in one file")
GREY = Kind(
    "picture-grey", Level.NOTE, "a picture in colour is read as its brightness; what is transparent counts as it is stored"
)
TURNED = Kind("picture-turned", Level.NOTE, "a picture was turned as its EXIF orientation says")
BURNED_IN = Kind(
    "picture-burned-in", Level.WARNING, "a DICOM picture says that text is burned into it: perhaps the patient's name"
)
MASK_UNREAD = Kind("picture-mask-unread", Level.NOTE, "a mask beside a picture is not read")
KINDS = (NOT_READ, NO_PYDICOM, MOVING, GREY, TURNED, BURNED_IN, MASK_UNREAD)


def out(kind: Kind, found: str, expected: str, do: str, name: str) -> StaysOutError:
    """One finding keeps the patient out.

    Args:
        kind: of the finding.
        found: what is there.
        expected: what would be right.
        do: what the hospital can do.
        name: of the file.
    """
    return StaysOutError([kind.finding(found, expected, do, file=name)])


def grey_note(found: str, name: str) -> Finding:
    """That a picture in colour became grey."""
    return GREY.finding(
        f"in colour ({found}), read as grey: brightness by ITU-R 601", "grey", "Nothing needs to be done.", file=name
    )
