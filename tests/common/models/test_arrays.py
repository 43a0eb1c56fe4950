from pathlib import Path

import numpy as np
import pytest

from common.errors import FederationError, WeightsError
from common.models.arrays import Arrays, check_arrays, flat, load_arrays, norm, save_arrays, shaped


def some(seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    return {"a": generator.normal(size=(3, 2)).astype(np.float32), "b": generator.normal(size=4).astype(np.float32)}


def test_the_norm_is_that_of_the_concatenation() -> None:
    assert norm(some(0)) == pytest.approx(np.linalg.norm(np.concatenate([a.ravel() for a in some(0).values()])), rel=1e-6)


def test_flat_is_in_the_order_of_names_and_shaped_undoes_it() -> None:
    backwards = dict(reversed(some(0).items()))
    np.testing.assert_array_equal(flat(backwards)[:6], some(0)["a"].ravel())
    for name, array in shaped(flat(backwards), backwards).items():
        np.testing.assert_array_equal(array, some(0)[name])


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
