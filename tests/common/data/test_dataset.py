"""SiteData: batches, parts and pools."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.data.dataset import SiteData


def some(name: str, patients: int, size: int = 4) -> SiteData:
    generator = np.random.default_rng(patients)
    return SiteData(
        name,
        tuple(f"sub-{n}" for n in range(patients)),
        generator.uniform(size=(patients, 2, 3, size, size)).astype(np.float16),
        generator.uniform(size=(patients, 3)) > 0.5,
        generator.integers(-1, 3, patients),
        name * 8,
    )


def known(data: SiteData) -> SiteData:
    """Two covariates: the patient's number, and one that only every other patient has."""
    numbers = np.arange(len(data), dtype=np.float32)
    return replace(data, covariates=np.stack([numbers, np.where(numbers % 2, np.float32(np.nan), 1)], axis=1))


def test_a_batch() -> None:
    data = some("s", 6)
    x, present, labels, covariates, mirrors, lesions = data.take([4, 0])
    assert lesions is None
    assert covariates.shape == (2, 0)  # there are none where none are given
    assert mirrors is None
    assert (x.dtype, present.dtype, labels.dtype) == (torch.float32, torch.bool, torch.int64)
    assert x.shape == (2, 2, 3, 4, 4)
    np.testing.assert_array_equal(x[0].numpy(), data.images[4].astype(np.float32))
    assert present[1].tolist() == data.present[0].tolist()
    assert labels.tolist() == [data.labels[4], data.labels[0]]
    before = np.array(data.images), data.present.copy(), data.labels.copy()
    x.zero_(), present.zero_(), labels.zero_()
    for kept, now in zip(before, (data.images, data.present, data.labels), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_an_empty_batch() -> None:
    assert some("s", 3).take([])[0].shape == (0, 2, 3, 4, 4)


def test_labelled_patients() -> None:
    data = some("s", 8)
    assert data.labelled.tolist() == [n for n in range(8) if data.labels[n] >= 0]


def test_some_of_the_patients() -> None:
    data = some("s", 6)
    part = data.select(np.array([5, 2]))
    assert (part.name, part.ids, len(part)) == ("s", ("sub-5", "sub-2"), 2)
    assert torch.equal(part.take([1])[0], data.take([2])[0])
    assert len({data.key, part.key, data.select([2, 5]).key}) == 3


def test_pooled_sites() -> None:
    one, two = some("du", 2), some("cs", 3)
    pooled = SiteData.pool([one, two], "all")
    assert pooled.ids == ("du/sub-0", "du/sub-1", "cs/sub-0", "cs/sub-1", "cs/sub-2")
    assert torch.equal(pooled.take([3])[0], two.take([1])[0])
    assert pooled.labels.tolist() == [*one.labels, *two.labels]
    assert pooled.key != SiteData.pool([two, one], "all").key


def test_covariates_go_where_their_patients_go() -> None:
    data, nan = known(some("s", 5)), float("nan")
    taken = data.take([3, 0]).covariates
    assert (taken.dtype, taken.shape) == (torch.float32, (2, 2))
    np.testing.assert_array_equal(taken, [[3, nan], [0, 1]])
    np.testing.assert_array_equal(data.select([4, 1]).covariates, [[4, 1], [1, nan]])
    np.testing.assert_array_equal(SiteData.pool([known(some("t", 1)), data.select([2])], "all").covariates, [[0, 1], [2, 1]])
    taken.zero_()
    assert data.covariates[3, 0] == 3, "a batch may be changed"
    without = data.without_covariates()
    assert without.covariates.shape == (5, 2)
    assert np.isnan(without.covariates).all()
    assert not np.isnan(data.covariates[:, 0]).any()


def test_what_does_not_belong_together_is_refused() -> None:
    data = some("s", 3)
    with pytest.raises(ValueError, match="do not belong together"):
        SiteData("s", data.ids[:2], data.images, data.present, data.labels, "")
    with pytest.raises(ValueError, match="do not belong together"):
        replace(data, covariates=np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="images of one shape"):
        SiteData.pool([data, some("t", 3, size=5)], "all")
    with pytest.raises(ValueError, match="images of one shape"):
        SiteData.pool([], "all")
