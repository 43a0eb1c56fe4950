"""What `bench/before.py` has measured in a process of either checkout; it knows the names of both.

PYTHON bench/before_child.py rounds CONFIG WEIGHTS PATIENTS ROUND ...   processor seconds of rounds, as JSON
PYTHON bench/before_child.py model CONFIG WEIGHTS RUN                   an untrained model for `predict`
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def first_of(*names: str) -> Any:
    """The first of these that the checkout has, each `module:name`."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(names)} is in this checkout")


def load(config: str, weights: str) -> Any:
    """A configuration with weights of its own; "" leaves those that it names."""
    settings = (f"weights={weights}",) if weights else ()
    return first_of("common.config.run:load_config", "common.config:load_config")(Path(config), settings)


def rounds(config_path: str, weights: str, patients: str, *numbers: str) -> None:
    """Train rounds one after the other, each from what the one before gave, on patients of noise who have every modality."""
    from common.data.dataset import SiteData  # noqa: PLC0415  of the checkout whose Python this is
    from common.models.arrays import get_arrays  # noqa: PLC0415
    from common.models.build import build_model  # noqa: PLC0415
    from common.training.local import train_round  # noqa: PLC0415

    config, n = load(config_path, weights), int(patients)
    model, data = build_model(config), config.data
    shape = (n, data.slices, len(data.modalities), data.size, data.size)
    images = np.random.default_rng(0).random(shape, np.float32).astype(np.float16)
    site = SiteData("bench", tuple(map(str, range(n))), images, np.ones((n, shape[2]), bool), np.arange(n) % 3, "bench")
    arrays, seconds = get_arrays(model), {}
    for number in numbers:
        began = time.process_time()
        arrays = dict(train_round(model, arrays, site, config, round_number=int(number), site_seed=int(number)).arrays)
        seconds[number] = time.process_time() - began
    print(json.dumps(seconds))


def model(config_path: str, weights: str, run: str) -> None:
    """A run folder, by the checkout's own `bench/predict.py`, which lies beside its rooms."""
    common = importlib.import_module("common")
    sys.path[0] = str(Path(str(common.__file__)).parents[1] / "bench")
    predict = importlib.import_module("predict")
    folder = Path(run)
    folder.mkdir(parents=True)
    if weights == "make":
        weights = str(folder / "weights.safetensors")
        predict.save_random_weights(Path(weights))
    predict.make_run(folder, load(config_path, weights))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run: Callable[..., None] = rounds if sys.argv[1] == "rounds" else model
    run(*sys.argv[2:])
