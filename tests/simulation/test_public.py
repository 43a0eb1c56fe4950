"""`fedmri-sim public` writes a file that private runs of the same configuration take, and others refuse."""

from pathlib import Path

import numpy as np
import pytest

from common.cli import config_path
from common.config.run import load_config
from common.errors import ConfigError
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from common.models.public_features import PROJECTION, QUERY
from simulation.cli import main


@pytest.mark.slow
def test_a_file_is_made_of_phantoms_and_serves_a_private_run(tmp_path: Path) -> None:
    out = tmp_path / "public.safetensors"
    settings = ["size=32", "slices=2", "model.pooling=taught", f"model.public_features={out}", "public_width=4", "head=linear"]
    asked = [part for setting in settings for part in ("--set", setting)]
    assert main(["public", str(out), "--config", "private", *asked, "--patients", "6", "--seed", "5"]) == 0
    arrays, about = load_arrays(out)
    assert about["phantoms"] == "6 of seed 5"
    assert arrays[PROJECTION].shape[0] == 6  # directions of six patients
    assert arrays[QUERY].any(1).all()
    model = build_model(load_config(config_path("private"), tuple(settings)))
    found = get_arrays(model)
    np.testing.assert_array_equal(found[PROJECTION], arrays[PROJECTION][:4])
    np.testing.assert_array_equal(found[QUERY], arrays[QUERY])
    with pytest.raises(ConfigError, match=r"made with data\.size = 32, and the run has 64"):
        build_model(load_config(config_path("private"), (*settings[1:], "size=64")))
