"""Pre-training on tissue: its loss against closed forms, what it moves, and the file it leaves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from common.cli import config_path
from common.config.run import load_config
from common.errors import ConfigError
from common.models.arrays import get_arrays
from common.models.build import build_model
from simulation.cli import main
from simulation.phantom.parts import PARTS
from simulation.tissue import _divergence, pretrain_on_tissue, tissue_loss, train, vary

CONFIG = load_config(config_path("pretrain-tissue"), ("size=32", "slices=2", "training.batch_size=4", "local_epochs=12"))


def made(patients: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Images in which a patch's brightness on T1 is the share of white matter in it."""
    generator = np.random.default_rng(3)
    white = generator.random((patients, 2, 1, 4, 4)).astype(np.float16)
    images = np.zeros((patients, 2, 4, 32, 32), np.float16) + np.repeat(np.repeat(white, 8, 3), 8, 4)
    parts = np.zeros((patients, 2, len(PARTS), 4, 4), np.float16)
    parts[:, :, list(PARTS).index("white")] = white[:, :, 0]
    return images, parts


def test_the_divergence_is_zero_for_the_truth_and_the_entropys_rest_for_an_even_guess() -> None:
    truth = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    assert float(_divergence(truth, truth.clamp_min(1e-12).log())) == pytest.approx(0.0, abs=1e-6)
    assert float(_divergence(truth, torch.zeros(1, 4))) == pytest.approx(np.log(4) - 1.5 * np.log(2), abs=1e-6)


def test_absent_modalities_and_air_say_nothing() -> None:
    images, parts = made()
    x, shares, generator = torch.from_numpy(images).float(), torch.from_numpy(parts).float(), torch.Generator().manual_seed(0)
    x[:, :, :, :8] = 0
    changed, _, present = vary(x.clone(), shares.clone(), generator)
    assert (changed == 0).sum() >= (x == 0).sum()
    assert present.any(1).all()
    model, heads = build_model(CONFIG), nn.ModuleList(nn.Linear(160, len(PARTS) + 1) for _ in range(2))
    alone = torch.tensor([[True, False, False, False]] * 4)
    other = x.clone()
    other[:, :, 1:] = torch.rand(other[:, :, 1:].shape)
    torch.testing.assert_close(tissue_loss(model, heads, x, shares, alone), tissue_loss(model, heads, other, shares, alone))


def test_it_learns_and_moves_the_backbone_alone() -> None:
    model = build_model(CONFIG)
    before = get_arrays(model)
    losses = train(model, *made(), CONFIG)
    moved = {name for name, array in get_arrays(model).items() if not np.array_equal(array, before[name])}
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert moved
    assert all(name.startswith("vit.") for name in moved)


def test_the_command_writes_a_file_that_a_run_can_name(tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    small = ["--set", "size=32", "--set", "slices=2", "--set", "training.batch_size=4", "--set", "local_epochs=1"]
    assert main(["pretrain", str(out), "--on", "tissue", "--patients", "4", "--seed", "5", *small]) == 0
    build_model(load_config(config_path("demo"), (f"weights={out}",)))
    with safe_open(out, "np") as file:
        assert file.metadata()["phantoms"] == "4 of seed 5"


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    frozen = load_config(config_path("pretrain-tissue"), ('adapter="lora"',))
    for config, patients, words in ((frozen, 20, 'not "lora"'), (CONFIG, 3, "a batch")):
        with pytest.raises(ConfigError, match=words):
            pretrain_on_tissue(config, patients, 5, tmp_path / "x.safetensors", lambda *_: None)
    assert not list(tmp_path.iterdir())
