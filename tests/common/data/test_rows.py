"""Rows: patients' images that are read where they lie, and when they are asked for."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.sections import DataConfig
from common.data.dataset import SiteData
from common.data.holdout import split
from common.data.rows import Rows
from common.training.views import slices_of_step, take_step

N, S, M, SIZE = 40, 5, 4, 16


@pytest.fixture
def mapped(tmp_path: Path) -> SiteData:
    """A site of 40 patients, memory-mapped."""
    generator = np.random.default_rng(7)
    np.save(tmp_path / "images.npy", generator.uniform(size=(N, S, M, SIZE, SIZE)).astype(np.float16))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    lesions = generator.integers(0, 256, (N, S, SIZE, SIZE), np.uint8)
    labels = generator.integers(-1, 3, N)
    return SiteData("s", tuple(f"sub-{n}" for n in range(N)), images, np.ones((N, M), np.bool_), labels, "key", lesions=lesions)


def test_rows_are_an_array_of_what_was_chosen() -> None:
    first, second = (np.random.default_rng(n).uniform(size=(n, 2, 3, 4, 4)).astype(np.float16) for n in (5, 3))
    both, order = np.concatenate([first, second]), np.array([7, 0, 0, 4, 6])
    rows = Rows.of([first, Rows.of([second])]).select(order)
    assert (rows.shape, rows.ndim, rows.dtype, len(rows)) == ((5, 2, 3, 4, 4), 5, np.dtype(np.float16), 5)
    np.testing.assert_array_equal(np.array(rows), both[order])
    np.testing.assert_array_equal(rows[2], both[order[2]])
    np.testing.assert_array_equal(rows[2, 1, :, 0], both[order[2], 1, :, 0])
    np.testing.assert_array_equal(rows[3], both[4])
    assert np.asarray(rows.select([]), np.float32).shape == (0, 2, 3, 4, 4)
    assert np.shares_memory(rows[3], first)
    with pytest.raises(ValueError, match="copy"):
        np.array(rows, copy=False)


def test_parts_of_a_site_lie_in_its_memory_map(mapped: SiteData) -> None:
    """Of parts and pools nothing is copied; what numpy allocates is counted, not timed."""
    mapped = replace(mapped, lesions=None)  # these are no memory map
    tracemalloc.start()
    training, held = split(mapped, 0.2)
    pooled = SiteData.pool([training.select(training.labelled), held], "all")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < len(held) < len(training) < N
    assert peak < np.asarray(mapped.images).nbytes / 4
    assert all(np.shares_memory(pooled.images[row], mapped.images) for row in range(len(pooled)))
    rows = [*np.array([mapped.ids.index(name) for name in training.ids])[training.labelled]]
    rows += [mapped.ids.index(name) for name in held.ids]
    np.testing.assert_array_equal(np.array(pooled.images), np.asarray(mapped.images)[rows])


@pytest.mark.parametrize(
    "data", [DataConfig(size=SIZE), DataConfig(size=SIZE, axes=("axial", "sagittal"), slices=2)], ids=["one", "two"]
)
@pytest.mark.parametrize("number", [1, 3, S + 1])
def test_a_step_reads_the_slices_that_it_takes(mapped: SiteData, data: DataConfig, number: int) -> None:
    """The same as of a batch that was read whole."""
    few = S if data.slices == S else 4
    site = SiteData(
        "s", mapped.ids, np.asarray(mapped.images)[:, :few], mapped.present, mapped.labels, "key", lesions=mapped.lesions[:, :few]
    )
    rows = np.array([9, 2, 30])
    first, second = (torch.Generator().manual_seed(5) for _ in range(2))
    whole = slices_of_step(site.take(rows, lesions=True), data, number, first)
    taken = take_step(site, rows, data, number, second, lesions=True)
    for one, other in zip(whole, taken, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert (taken.mirrors is None) == (data.axes == ("axial",))
    assert torch.equal(first.get_state(), second.get_state())
