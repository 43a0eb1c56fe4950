"""A pooling inside the files that need none of our code: ONNX and TorchScript against the model itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.run import config_from_table
from common.model_files.dense import DenseModel
from common.models.build import build_model
from server.release.graphs import write_onnx, write_torchscript

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "axes"), [("centre", ["axial"]), ("guided", ["axial", "coronal"])])
def test_exported_graphs_pool_as_the_model_does(pooling: str, axes: list[str], tmp_path: Path) -> None:
    model_section = {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "pooling": pooling}
    config = config_from_table(
        {"data": {"size": 32, "slices": 2, "axes": axes}, "model": model_section, "training": {"head_rounds": 2}}
    )
    model, generator = build_model(config).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.pool.values():
            value.copy_(torch.randn(value.shape, generator=generator))
    dense = DenseModel(model, 3, 0.1).eval()
    write_onnx(tmp_path / "model.onnx", dense, config.data)
    write_torchscript(tmp_path / "model.pt", dense, config.data)
    images = torch.rand(3, 2 * len(axes), 4, 32, 32, generator=generator)
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0]]).bool()
    with torch.inference_mode():
        expected = (model(images, present).logits[:, :3].double() / 0.1).softmax(-1).float().numpy()
        script = torch.jit.load(str(tmp_path / "model.pt"))(images, present).numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    [found] = session.run(None, {"images": images.numpy(), "present": present.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(script, expected, atol=1e-4)
