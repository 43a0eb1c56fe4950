"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide GPUs from every test of this process that is not about them."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elif not torch.cuda.is_available():
        pytest.skip("no GPU here")


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"real {name} are not here: expected {folder.name}/ beside the checkout, or {variable} to name a folder")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MRI (`tcga-lgg/`, `cases/`), or a skip that says why."""
    return _shared("data", "FEDMRI_REAL_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The DeiT-Tiny weights file, or a skip that says why."""
    return _shared("weights", "FEDMRI_REAL_WEIGHTS") / "deit_tiny_patch16_224.fp16.safetensors"
