"""Masks of many slices at once, each slice alone: what `scipy.ndimage` does with one, without its cost for each call.

S slices of X x Y pixels, slices first, so that each lies in one piece.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.volumes import Array, Mask

BESIDE = ndimage.generate_binary_structure(2, 1)[None]  # [1, 3, 3]: a pixel and its four neighbours in the slice


def opened(masks: Mask) -> Mask:
    """`scipy.ndimage.binary_opening` of each slice [S, X, Y]: pixels that no cross of five within the mask covers fall out."""
    inside = np.zeros_like(masks)
    middle = (slice(None), slice(1, -1), slice(1, -1))
    inside[middle] = masks[middle] & masks[:, 2:, 1:-1] & masks[:, :-2, 1:-1] & masks[:, 1:-1, 2:] & masks[:, 1:-1, :-2]
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    grown[:, :, 1:] |= inside[:, :, :-1]
    grown[:, :, :-1] |= inside[:, :, 1:]
    return grown


def without_holes(masks: Mask) -> Mask:
    """`scipy.ndimage.binary_fill_holes` of each slice [S, X, Y]: only what is joined to the image's edge stays outside."""
    outside, count = pieces(~masks)
    joined = np.zeros(count + 1, np.bool_)
    for edge in (outside[:, 0], outside[:, -1], outside[:, :, 0], outside[:, :, -1]):
        joined[edge] = True
    joined[0] = False
    filled: Mask = ~joined[outside]
    return filled


def pieces(masks: Mask) -> tuple[NDArray[np.int32], int]:
    """Numbers of the joined pieces [S, X, Y], 0 outside, and how many there are; no piece reaches from slice to slice."""
    numbered, count = ndimage.label(masks, structure=np.concatenate([0 * BESIDE, BESIDE, 0 * BESIDE]))
    return numbered, int(count)


def squared_distance(points: Mask, pixel: tuple[float, float], reach: float) -> Array:
    """mm^2 from each pixel of [S, X, Y] to its slice's nearest of these points; beyond `reach` too much, or infinity."""
    squared = np.where(points, np.float32(0), np.float32(np.inf))
    for axis, length in enumerate(pixel, start=1):
        before, source = squared.swapaxes(1, axis).copy(), squared.swapaxes(1, axis)
        for step in range(1, min(int(reach / length) + 1, before.shape[1])):
            further = source + np.float32((step * length) ** 2)
            np.minimum(before[:, step:], further[:, :-step], out=before[:, step:])
            np.minimum(before[:, :-step], further[:, step:], out=before[:, :-step])
        squared = before.swapaxes(1, axis)
    return squared
