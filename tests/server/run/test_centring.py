"""Mean features through a whole run: measured in round 1, the same in plain and in masked rounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.models.arrays import Arrays, load_arrays
from common.training.trainable import CENTRE
from server.run.federate import federate
from tests.server.made_up_sites import plan, site_nodes

SECTIONS = {"model": {"centre_features": True}, "training": {"head_rounds": 2, "head_steps": 2, "head_views": 2}}


def run(folder: Path, out: Path, local_grid: Any, **more: Any) -> list[Arrays]:
    """The arrays after each round."""
    federate(local_grid(site_nodes()), plan(folder, out, sites=("a", "b"), rounds=3, sections={**SECTIONS, **more}))
    return [load_arrays(out / "checkpoints" / f"round-{number:04d}.safetensors")[0] for number in (1, 2, 3)]


@pytest.mark.slow
def test_round_one_measures_it_and_no_later_round_moves_it(folder: Path, tmp_path: Path, local_grid: Any) -> None:
    first, second, third = run(folder, tmp_path / "plain", local_grid)
    assert 0 < np.abs(first[CENTRE]).max() <= 1
    assert np.array_equal(first[CENTRE], second[CENTRE])
    assert np.array_equal(first[CENTRE], third[CENTRE])
    assert any(not np.array_equal(first[name], second[name]) for name in first if name.startswith("head."))
    masked, *_ = run(folder, tmp_path / "masked", local_grid, secure={"enabled": True})
    np.testing.assert_allclose(masked[CENTRE], first[CENTRE], atol=1e-5)
