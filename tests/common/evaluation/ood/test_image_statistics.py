"""Image statistics against closed forms, and against what each of them is there to notice."""

import numpy as np
import pytest
from scipy import stats

from common.evaluation.ood.image_statistics import STATISTICS, image_statistics
from common.evaluation.ood.modality_agreement import AGREEMENTS, modality_agreement

SHARPNESS, UNEVEN, ENTROPY, ROUGH = 11, 12, 13, 14
SHARES, TILT, PEAKS = slice(15, 19), slice(19, 23), slice(23, 26)


def of(image: np.ndarray) -> np.ndarray:
    """[S, H, W] to [STATISTICS]."""
    return image_statistics(image[:, None])[0]


def textured(seed: int = 0, size: int = 48) -> np.ndarray:
    generator = np.random.default_rng(seed)
    smooth = np.abs(np.fft.ifft2(np.fft.fft2(generator.normal(size=(3, size, size))) * (radius(size) < 0.15)))
    return 0.2 + 0.6 * smooth / smooth.max()


def radius(size: int) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])


def test_contrast_is_scipys() -> None:
    image = textured()
    found = of(image)
    values = image.ravel()
    assert found[0] == 1.0
    assert found[1] == pytest.approx(values.mean())
    assert found[2] == pytest.approx(values.std(), abs=2e-3)
    assert found[3] == pytest.approx(stats.skew(values), abs=0.05)
    assert np.exp(found[4]) == pytest.approx(stats.kurtosis(values, fisher=False), rel=0.05)
    np.testing.assert_allclose(found[5:10], np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)))


def test_background_does_not_count_as_brain() -> None:
    image = np.zeros((2, 40, 40))
    image[:, 10:30, 10:30] = 0.5
    found = of(image)
    assert found[0] == pytest.approx(0.25)
    assert found[1] == pytest.approx(0.5)
    assert found[SHARPNESS] == pytest.approx(np.log(1e-3), abs=0.01)  # the brain's outline is no edge inside it


def test_turning_an_image_by_90_degrees_turns_what_has_a_direction_and_nothing_else() -> None:
    image = textured()
    blurred = (image + np.roll(image, 1, 1) + np.roll(image, 2, 1)) / 3
    found, turned = of(blurred), of(np.rot90(blurred, axes=(1, 2)))
    directed = [UNEVEN, *range(*TILT.indices(STATISTICS))]
    assert found[UNEVEN] < -0.1
    np.testing.assert_allclose(turned[directed], -found[directed], atol=0.1)
    others = [i for i in range(STATISTICS) if i not in directed and i != ROUGH]
    np.testing.assert_allclose(turned[others], found[others], atol=0.15)


def test_noise_a_stripe_and_clipping_are_noticed() -> None:
    image, generator = textured(), np.random.default_rng(5)
    clean = of(image)
    noisy = of(np.clip(image + generator.normal(0, 0.1, image.shape), 0, 1))
    assert noisy[ROUGH] > clean[ROUGH] + 0.5
    assert noisy[SHARES][3] > clean[SHARES][3] + 1.5
    stripe = 0.1 * np.sin(2 * np.pi * 0.35 * np.arange(48))[None, :, None]
    assert of(np.clip(image + stripe, 0, 1))[PEAKS].max() > clean[PEAKS].max() + 2.0
    assert of(np.minimum(2.5 * image, 1.0))[10] > clean[10] + 3.0
    ghosts = (image + np.roll(image, 12, 1) + np.roll(image, 24, 1)) / 3
    assert of(ghosts)[ENTROPY] > clean[ENTROPY]


@pytest.mark.parametrize("image", [np.zeros((1, 16, 16)), np.ones((1, 16, 16)), np.eye(17)[None], np.zeros((5, 64, 64))])
def test_finite_whatever_comes(image: np.ndarray) -> None:
    with np.errstate(all="raise"):
        assert of(image).shape == (STATISTICS,)
        assert np.isfinite(of(image)).all()
        assert np.isfinite(modality_agreement(image, np.roll(image, 3, 1))).all()


def test_agreement_by_a_loop_and_from_both_sides() -> None:
    one, other = textured(0, 16), textured(1, 16)
    dot = norm = 0.0
    strengths, values = [], []
    for s in range(3):
        for y in range(1, 15):
            for x in range(1, 15):
                a = np.array([one[s, y + 1, x] - one[s, y - 1, x], one[s, y, x + 1] - one[s, y, x - 1]])
                b = np.array([other[s, y + 1, x] - other[s, y - 1, x], other[s, y, x + 1] - other[s, y, x - 1]])
                dot, norm = dot + (a @ b) ** 2, norm + (a @ a) * (b @ b)
                strengths.append((np.hypot(*a), np.hypot(*b)))
                values.append((one[s, y, x], other[s, y, x]))
    by_hand = [
        np.log(1 - dot / norm + 1e-3),
        *(np.arctanh(0.999 * np.corrcoef(np.array(v).T)[0, 1]) for v in (strengths, values)),
    ]
    found = modality_agreement(one, other)
    assert found.shape == (AGREEMENTS,)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9)
    np.testing.assert_allclose(modality_agreement(other, one), found)


def test_agreement_is_lost_by_a_shift_and_turned_by_inversion() -> None:
    image = textured()
    same, inverted, shifted = (modality_agreement(image, x) for x in (image, 1.0 - image, np.roll(image, 7, 1)))
    np.testing.assert_allclose(inverted[:2], same[:2], atol=1e-6)
    assert inverted[2] == pytest.approx(-same[2])
    assert shifted[0] > same[0] + 3.0
    assert abs(shifted[1]) < 0.6 < same[1]
