from pathlib import Path

import numpy as np
import pytest

from common.errors import FederationError, WeightsError
from common.models.arrays import Arrays, average, check_arrays, load_arrays, save_arrays, update_norm


def some(seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    return {"a": generator.normal(size=(3, 2)).astype(np.float32), "b": generator.normal(size=4).astype(np.float32)}


def test_average_is_numpys_weighted_average() -> None:
    updates, weights = [some(i) for i in range(5)], [3.0, 0.0, 1.5, 7.0, 2.0]
    mean = average(updates, weights)
    for name in mean:
        expected = np.average([u[name] for u in updates], axis=0, weights=weights)
        np.testing.assert_allclose(mean[name], expected, rtol=1e-6)
        assert mean[name].dtype == np.float32


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(FederationError):
        average([], [])
    with pytest.raises(FederationError):
        average([some(0)], [0.0])


def test_update_norm_is_that_of_the_concatenation() -> None:
    old, new = some(0), some(1)
    flat = np.concatenate([(new[name] - old[name]).ravel() for name in old])
    assert update_norm(new, old) == pytest.approx(np.linalg.norm(flat), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"a": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((3, 2), np.float64)},
        {"a": np.full((3, 2), np.nan, np.float32)},
        {"a": np.full((3, 2), np.inf, np.float32)},
        {"c": np.zeros(1, np.float32)},
    ],
)
def test_arrays_that_differ_are_refused(change: dict[str, np.ndarray]) -> None:
    check_arrays(some(1), some(0))
    with pytest.raises(FederationError):
        check_arrays({**some(1), **change}, some(0))


def test_files_are_repeatable_and_hold_their_metadata(tmp_path: Path) -> None:
    metadata = {"classes": "x", "backbone": "y", "config": "{}"}
    save_arrays(tmp_path / "one", some(0), metadata)
    save_arrays(tmp_path / "two", dict(reversed(some(0).items())), dict(reversed(metadata.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    arrays, found = load_arrays(tmp_path / "one")
    assert found == metadata
    assert all(np.array_equal(arrays[name], some(0)[name]) for name in arrays)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    for name in ("torn.safetensors", "absent.safetensors"):
        with pytest.raises(WeightsError, match=name):
            load_arrays(tmp_path / name)
