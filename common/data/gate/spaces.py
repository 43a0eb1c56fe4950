"""Images and mask in one space: a modality warped to a template fits none that was not."""

from collections import Counter

from common.config.modalities import MASK
from common.data.gate.candidates import Candidates, Notebook
from common.data.gate.finding import Kind, Level

CHOSEN = Kind("space-chosen", Level.NOTE, "of files in several spaces those in one are used")
MIXED = Kind("space-mixed", Level.ERROR, "the modalities lie in different spaces")
OTHER_MASK = Kind("mask-other-space", Level.WARNING, "a tumour mask in another space than the images is not used")
KINDS = (CHOSEN, MIXED, OTHER_MASK)
OWN = "the patient's own"


def in_one_space(found: Candidates, book: Notebook) -> Candidates:
    """Of files of one kind in several spaces those in the space that the most kinds have; the patient's own before others."""
    spaces = Counter(space for files in found.values() for space in {one.space for one in files})
    best = min(spaces, key=lambda space: (-spaces[space], space), default="")
    kept = {kind: [one for one in files if one.space == best] or files for kind, files in found.items()}
    if any(len(kept[kind]) < len(files) for kind, files in found.items()):
        book.add(
            CHOSEN,
            found=f"files in the spaces {', '.join(space or OWN for space in sorted(spaces))}; used: {best or OWN}",
            expected="one space: that of the most files, else the patient's own",
            do="Another is used if the globs under [files] of site.toml name it.",
        )
    images = {kind: files[0].space for kind, files in kept.items() if files and kind != MASK}
    if len(set(images.values())) > 1:
        book.add(
            MIXED,
            found="modalities in different spaces: " + ", ".join(f"{kind} in {space or OWN}" for kind, space in images.items()),
            expected="all in one",
            do="Bring them into one space, or leave the others out by globs under [files] of site.toml.",
        )
    masks = kept.get(MASK, [])
    if masks and images and masks[0].space not in images.values():
        book.add(
            OTHER_MASK,
            masks[0].path,
            found=f"a tumour mask in the space {masks[0].space or OWN}, which is not the images'; not used",
            expected="a mask in the space of the images",
            do="Bring it there, or name another by files.mask in site.toml.",
        )
        kept[MASK] = []
    return kept
