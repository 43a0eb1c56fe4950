"""Pictures of slices with the evidence by place drawn over them, as PNG bytes.

Orange: the patch is evidence for the predicted class; blue: against it; the stronger, the less of the slice shines through. One
scale serves all of a patient's slices. S slices, M modalities, H = W pixels, h x w patches.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FOR, AGAINST = (255, 140, 0), (40, 120, 255)
STRONGEST = 0.65  # opacity
EDGE = 168  # pixels of one slice in `draw_evidence`
LABEL = 18  # pixels of a line of text
Places = NDArray[np.float32]


def slice_png(image: NDArray[Any]) -> bytes:
    """One slice [H, W] of 0 to 1 in grey."""
    return _png(Image.fromarray(_grey(image)))


def overlay_png(contributions: Places, scale: float) -> bytes:
    """Contributions [h, w] of one slice as a transparent picture of as many pixels, to be stretched over it."""
    return _png(Image.fromarray(_overlay(contributions, scale), "RGBA"))


def strength(contributions: Places) -> float:
    """The contribution that is drawn strongest: few patches of a patient exceed it. 0 where nothing contributes."""
    sizes = np.abs(contributions[contributions != 0])
    return float(np.percentile(sizes, 99)) if sizes.size else 0.0


def draw_evidence(
    images: NDArray[Any],
    contributions: Places | None,
    modalities: Sequence[str],
    present: Sequence[bool],
    *,
    slices: int = 3,
    names: Sequence[str] = (),
) -> bytes:
    """One picture of a patient: a row for each present modality, a column for each of some slices.

    Args:
        images: [S, M, H, W], as the model saw them.
        contributions: [S, M, h, w] of `common.evaluation.explanation.attribution.place_evidence`; None: slices alone.
        modalities: names of all M.
        present: [M].
        slices: columns; those on which the most rests, in the order of the stack.
        names: [S], of the plane and field of view of each; (): there is one of both, and nothing is written.
    """
    rows = [m for m, here in enumerate(present) if here]
    columns = _fullest(contributions, len(images), slices)
    scale = strength(contributions) if contributions is not None else 0.0
    picture = Image.new("RGB", (EDGE * len(columns), (EDGE + LABEL) * len(rows)), (16, 21, 26))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for row, m in enumerate(rows):
        top = row * (EDGE + LABEL)
        for column, s in enumerate(columns):
            words = [modalities[m].upper()] * (column == 0) + list(names[s : s + 1])
            pen.text((column * EDGE + 4, top + 2), ", ".join(words), fill=(231, 235, 237), font=font)
            tile = Image.fromarray(_grey(images[s, m])).convert("RGBA").resize((EDGE, EDGE), Image.Resampling.BILINEAR)
            if contributions is not None:
                over = Image.fromarray(_overlay(contributions[s, m], scale), "RGBA")
                tile = Image.alpha_composite(tile, over.resize((EDGE, EDGE), Image.Resampling.BILINEAR))
            picture.paste(tile.convert("RGB"), (column * EDGE, top + LABEL))
    return _png(picture)


def _fullest(contributions: Places | None, count: int, wanted: int) -> list[int]:
    """Which slices: those of the largest summed size of contributions, or the middle ones."""
    if contributions is None:
        first = max(0, (count - wanted) // 2)
        return list(range(first, min(count, first + wanted)))
    sizes = np.abs(contributions).sum(axis=(1, 2, 3))
    return sorted(np.argsort(-sizes, kind="stable")[:wanted].tolist())


def _grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round(np.clip(np.asarray(image, np.float32), 0, 1) * 255).astype(np.uint8)


def _overlay(contributions: Places, scale: float) -> NDArray[np.uint8]:
    """[h, w, 4] bytes: colour by sign, opacity by size."""
    share = np.clip(contributions / scale, -1, 1) if scale > 0 else np.zeros_like(contributions)
    colour = np.where(share[..., None] >= 0, np.array(FOR), np.array(AGAINST))
    opacity = np.abs(share)[..., None] * (STRONGEST * 255)
    return np.round(np.concatenate([colour, opacity], axis=-1)).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    content = BytesIO()
    image.save(content, "PNG", optimize=False)
    return content.getvalue()
