"""What images show: thumbnails, skulls, likeness, and names by look; each against a naive loop or a picture made to show it."""

from itertools import permutations

import numpy as np
import pytest

from common.data.fingerprint import fingerprint, shared
from common.data.review.look import AGAINST, ALIKE, ALONE, Look, look
from common.data.review.skull import RING, find_faces, scalp_share
from common.data.review.swapped import NAMES, PAIRS, SIZE, Weights, design, name_volumes, shipped_weights
from common.data.review.thumbnail import depth_inside, thumbnail
from common.data.review.twice import Volumes, find_alike
from common.data.volumes import Volume

GRID = np.diag([1.0, 1.0, 5.0, 1.0])


def head(seed: int = 0, edge: int = 150) -> Volume:
    """An ellipse of smooth texture in air, in every slice."""
    from scipy import ndimage

    generator = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1.1, 1.1, edge)] * 2, indexing="ij")
    inside = (x**2 + y**2 < 1)[:, :, None]
    texture = ndimage.gaussian_filter(generator.normal(0, 1, (edge, edge, 8)), (3, 3, 1))
    return Volume((inside * np.clip(500 + 900 * texture, 20, None)).astype(np.float32), GRID)


def test_a_thumbnail_is_means_over_blocks() -> None:
    volume = head()
    small = thumbnail({"t1": volume})
    assert small.pixel == (2.0, 2.0)
    z = 3
    naive = [[volume.voxels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, z].mean() for j in range(75)] for i in range(75)]
    np.testing.assert_allclose(small.slices["t1"][:, :, z], naive, rtol=1e-5)


def test_depth_is_the_distance_to_the_nearest_pixel_outside() -> None:
    region = np.random.default_rng(0).random((9, 8, 2)) > 0.2
    region[4, 4] = False
    depth = depth_inside(region, (2.0, 3.0))
    for x, y, s in np.argwhere(region)[::5]:
        outside = np.argwhere(~region[:, :, s])
        assert depth[x, y, s] == pytest.approx(np.hypot(2.0 * (outside[:, 0] - x), 3.0 * (outside[:, 1] - y)).min())
    assert not depth[~region].any()


def test_a_corner_of_a_head_is_not_judged() -> None:
    assert thumbnail({"t1": head()}).shows_a_head
    small = head(edge=20)
    assert not thumbnail({"t1": small}).shows_a_head


def test_numbers_do_not_hang_on_scale_or_shift_of_z_scores() -> None:
    volume = head()
    scaled = Volume(volume.voxels * 3.7, GRID)
    a, b = look(thumbnail({"t1": volume, "t2": head(1)})), look(thumbnail({"t1": scaled, "t2": head(1)}))
    np.testing.assert_allclose(a.alone, b.alone, atol=2e-3)
    np.testing.assert_allclose(a.against, b.against, atol=2e-3)
    assert a.alone.shape == (2, ALONE)
    np.testing.assert_array_equal(a.against, -a.against.swapaxes(0, 1))
    np.testing.assert_array_equal(a.alike, a.alike.swapaxes(0, 1))


def test_z_scored_heads_are_judged_from_above_zero() -> None:
    volume = head()
    inside = volume.voxels > 0
    scored = np.where(inside, (volume.voxels - volume.voxels[inside].mean()) / volume.voxels[inside].std(), 0)
    small = thumbnail({"t1": Volume(scored.astype(np.float32), GRID), "t2": volume})
    assert (small.slices["t1"][small.deep] < 0).mean() < 0.02
    assert np.median(small.slices["t1"][small.deep]) > 1


@pytest.mark.parametrize(("ring", "found"), [(True, True), (False, False)])
def test_scalp(ring: bool, found: bool) -> None:
    volume = head()
    x, y = np.meshgrid(*[np.linspace(-1.1, 1.1, 150)] * 2, indexing="ij")
    radius = np.hypot(x, y)
    voxels = np.where((radius < 0.8)[:, :, None], volume.voxels, 0)
    if ring:
        voxels = np.where(((radius > 0.9) & (radius < 1))[:, :, None], 900, voxels)
    small = thumbnail({"t1": Volume(voxels.astype(np.float32), GRID)})
    assert (scalp_share(small.slices["t1"], small.pixel) >= RING) is found
    assert [one.code for one in find_faces(small)] == ["face"] * found


def seen(names: tuple[str, ...], seed: int = 0) -> Look:
    generator, count = np.random.default_rng(seed), len(names)
    against = generator.normal(0, 1, (count, count, AGAINST))
    alike = generator.normal(0, 1, (count, count, ALIKE))
    return Look(
        names, generator.normal(0, 1, (count, ALONE)), alike + alike.swapaxes(0, 1), against - against.swapaxes(0, 1), True
    )


def test_chances_are_the_softmax_over_all_ways_to_name() -> None:
    """Against a loop over names that adds up each volume's and each pair's part of the weights."""
    generator, one = np.random.default_rng(1), seen(("t1", "t2", "flair"))
    weights = Weights(np.zeros(ALONE + ALIKE), np.ones(ALONE + ALIKE + AGAINST) * 100, generator.normal(0, 9, SIZE))
    namings, scores = name_volumes(one, weights), []
    of_name = weights.weights[: len(NAMES) * (ALONE + 1)].reshape(len(NAMES), -1)
    of_pair = weights.weights[len(NAMES) * (ALONE + 1) :].reshape(len(PAIRS), -1)
    for way in permutations(range(4), 3):
        score = sum(of_name[name] @ [*one.alone[i] / 100, 1] for i, name in enumerate(way))
        for i, a in enumerate(way):
            for j, b in enumerate(way):
                if a < b:
                    score += of_pair[PAIRS.index((a, b))] @ [*one.alike[i, j] / 100, 1, *one.against[i, j] / 100]
        scores.append(score)
    chances = np.exp(scores - np.max(scores))
    np.testing.assert_allclose(namings.chances, chances / chances.sum(), rtol=1e-9)
    assert design(one, weights)[0] == namings.ways


def test_kinds_add_up_over_t1_with_and_without_contrast() -> None:
    weights = Weights(np.zeros(ALONE + ALIKE), np.ones(ALONE + ALIKE + AGAINST), np.zeros(SIZE))
    namings = name_volumes(seen(("t1", "flair")), weights)  # all twelve ways are as likely
    assert namings.chance((0, 3)) == pytest.approx(2 / 12)
    assert namings.kind(0)[0] == 0
    assert namings.kind(0)[1] == pytest.approx(1 / 2)
    assert namings.odds_against((0, 1)) == pytest.approx(0)


def test_shipped_weights_fit_the_numbers() -> None:
    weights = shipped_weights()
    assert (weights.mean.size, weights.scale.size, weights.weights.size) == (ALONE + ALIKE, ALONE + ALIKE + AGAINST, SIZE)
    assert (weights.scale > 0).all()


def test_a_copy_in_another_form_is_alike_and_another_image_is_not() -> None:
    volume = head()
    copy = Volume(np.rint(255 * (volume.voxels / volume.voxels.max()) ** 0.8).astype(np.float32), GRID)
    assert [name for name, _ in find_alike(look(thumbnail({"t1": volume, "t1c": copy})))] == ["t1c"]
    assert not list(find_alike(look(thumbnail({"t1": volume, "t1c": head(1)}))))


def test_people_are_compared_by_all_their_tokens() -> None:
    """Pairs by way of the tokens, against every two volumes compared."""
    volumes = [head(0), Volume(head(0).voxels[3:] * 2, GRID), head(1), head(2)]
    site = Volumes()
    for number, volume in enumerate(volumes):
        site.add(f"sub-{number}", f"{number}.nii", volume)
    tokens = [fingerprint(volume) for volume in volumes]
    counts = {(i, j): shared(tokens[i], tokens[j]) for i in range(4) for j in range(i + 1, 4)}
    sizes = {(i, j): min(tokens[i].size, tokens[j].size) for i, j in counts}
    expected = {pair: count / sizes[pair] for pair, count in counts.items() if count >= 8}
    assert {(i, j): overlap for i, j, overlap in site._overlapping()} == pytest.approx(expected)
    assert [(one.code, one.patient) for one in site.find_twice()] == [("person-twice", "sub-1")]
    site.add("sub-4", "4.nii", volumes[2])
    assert ("volume-twice", "sub-4") in [(one.code, one.patient) for one in site.find_twice()]


@pytest.mark.slow
@pytest.mark.real_data
def test_real_patients_raise_no_alarm(real_data) -> None:
    """The weights saw these patients; `bench/swapped.py` measures those that it did not."""
    from common.config.run import RunConfig
    from common.data.cases import read_site
    from common.data.check import check_site

    run = RunConfig()
    result = check_site(read_site(real_data / "tcga-lgg" / "cs", run), run)
    assert "face" in result.codes
    assert not {"modality-swapped", "volume-twice", "volume-twice-near", "person-twice"} & set(result.codes)
