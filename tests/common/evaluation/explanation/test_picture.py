"""Pictures: their size, and that colour says what the evidence says."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from common.evaluation.explanation.picture import EDGE, LABEL, draw_evidence, overlay_png, slice_png, strength


def pixels(png):
    return np.asarray(Image.open(BytesIO(png)))


def test_a_slice_keeps_its_values():
    image = np.linspace(0, 1, 12).reshape(3, 4)
    assert np.array_equal(pixels(slice_png(image)), np.round(image * 255).astype(np.uint8))


def test_orange_for_blue_against_clear_for_nothing():
    over = pixels(overlay_png(np.array([[2.0, -2.0], [0.0, 1.0]], np.float32), 2.0)).astype(int)
    assert over.shape == (2, 2, 4)
    assert over[0, 0, 0] > over[0, 0, 2]
    assert over[0, 1, 0] < over[0, 1, 2]
    assert over[1, 0, 3] == 0
    assert over[0, 0, 3] == over[0, 1, 3] == pytest.approx(2 * over[1, 1, 3], abs=1)
    assert pixels(overlay_png(np.zeros((2, 2), np.float32), 0.0))[..., 3].max() == 0


def test_strength_leaves_out_absent_modalities():
    places = np.zeros((2, 2, 4, 4), np.float32)
    assert strength(places) == 0.0
    places[:, 0] = 3.0
    assert strength(places) == 3.0


def test_rows_are_present_modalities_and_columns_the_telling_slices():
    images = np.full((5, 4, 32, 32), 0.5, np.float16)
    places = np.zeros((5, 4, 4, 4), np.float32)
    places[4, 1], places[1, 1], places[2, 3] = 1.0, -1.0, 0.2
    picture = pixels(draw_evidence(images, places, ("t1", "t1c", "t2", "flair"), [False, True, False, True])).astype(int)
    assert picture.shape == (2 * (EDGE + LABEL), 3 * EDGE, 3)
    middle = picture[LABEL + EDGE // 2, EDGE // 2 :: EDGE]  # of t1c's tiles: slices 1, 2 and 4, in their order
    assert [int(np.sign(r - b)) for r, _, b in middle] == [-1, 0, 1]
    plain = pixels(draw_evidence(images[:2], None, ("t1",) * 4, [True] * 4))
    assert plain.shape == (4 * (EDGE + LABEL), 2 * EDGE, 3)


def test_planes_are_named_where_there_are_several():
    """The name stands over its slice, whichever slices are shown."""
    images, places = np.zeros((4, 1, 32, 32), np.float16), np.zeros((4, 1, 4, 4), np.float32)
    places[1], places[3] = 1.0, 2.0
    names = ("axial, 80 mm", "i", "coronal, 80 mm", "sagittal, 112 mm")
    bare, named = (pixels(draw_evidence(images, places, ("t1",), [True], slices=2, names=n)) for n in ((), names))
    changed = (bare != named).any(-1)
    assert not changed[LABEL:].any()
    ink = [int(changed[:LABEL, column * EDGE : (column + 1) * EDGE].sum()) for column in (0, 1)]
    assert 0 < ink[0] * 5 < ink[1]  # one letter over slice 1, and a long name over slice 3
