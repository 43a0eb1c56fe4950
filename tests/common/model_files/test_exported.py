"""Merged weights, the dense graph and the exported file, against the trained model itself."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from common.adapters.registry import ADAPTERS
from common.config.run import config_from_table
from common.errors import FedMRIError, WeightsError
from common.evaluation.calibration.calibration import Calibration
from common.model_files.dense import DenseModel
from common.model_files.exported import merge_trained, open_exported, save_exported, trained_model
from common.model_files.merge import kept_modules, merge
from common.model_files.open import open_saved, read_saved
from common.models.adapted import Adapted
from common.models.arrays import get_arrays, load_arrays, save_arrays, set_arrays
from common.models.build import build_model

BACKBONES = [  # a plain one, one with registers, one with rotary positions; how many last blocks are joint
    ("fedmri_vit_mini", 32, 0),
    ("fedmri_vit_mini", 32, 2),
    ("vit_small_patch14_reg4_dinov2", 28, 0),
    ("vit_small_patch16_dinov3", 32, 1),
]
WRAPPED = {"targets": ["qkv", "proj", "fc1", "fc2"]}
REFERENCE = {"ood.count": np.ones(4, np.float32)}


def trained(backbone="fedmri_vit_mini", size=32, adapter="lora", **model):
    """A fresh model, trained-looking arrays, and the configuration."""
    settings = WRAPPED if hasattr(ADAPTERS[adapter], "targets") else {}
    section = {"backbone": backbone, "weights": "random", "adapter": {"name": adapter, **settings}, **model}
    config = config_from_table({"model": section, "data": {"size": size, "slices": 2}})
    fresh, rng = build_model(config).eval(), np.random.default_rng(0)
    arrays = {n: (a + rng.normal(0, 0.02, a.shape)).astype(np.float32) for n, a in get_arrays(fresh).items()}
    return fresh, arrays, config


def patients(size=32):
    x = torch.rand(5, 2, 4, size, size, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 0]]).bool()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported file, the model it came from, and the configuration."""
    fresh, arrays, config = trained(joint_blocks=2)
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    plain, untouched = merge_trained(fresh, arrays)
    save_exported(path, plain, untouched, config, (Calibration(temperature=1.5, offsets=(0.5, 0.25, -0.75)), REFERENCE))
    return path, fresh, config


@pytest.mark.parametrize("adapter", ADAPTERS)
@torch.inference_mode()
def test_merging_keeps_the_outputs_and_leaves_no_adapter_that_can_be_merged(adapter):
    fresh, arrays, _ = trained(adapter=adapter)
    before = fresh(*patients()).logits
    plain, _ = merge_trained(fresh, arrays)
    torch.testing.assert_close(plain(*patients()).logits, fresh(*patients()).logits, rtol=0, atol=1e-5)
    assert (plain(*patients()).logits - before).abs().max() > 1e-3  # the training is in it
    assert bool([m for m in plain.modules() if isinstance(m, Adapted)]) == (adapter == "bottleneck")
    assert bool(kept_modules(plain)) == (adapter == "bottleneck")
    assert not [p for p in plain.parameters() if p.requires_grad]


def _weights(model):
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@torch.inference_mode()
def test_a_residual_beside_a_pair_is_merged_and_exported_and_the_backbone_stays(tmp_path):
    """`federation.low_rank = "residual"`: the release holds W + s (B A + residual), and opens without what it was made of."""
    section = {"backbone": "fedmri_vit_mini", "weights": "random", "blocks": 1, "adapter": {"rank": 2, "alpha": 6.0}}
    table = {"model": section, "data": {"size": 32, "slices": 2}}
    config = config_from_table(table | {"federation": {"low_rank": {"name": "residual", "kept_rank": 5}}})
    fresh, rng = build_model(config).eval(), np.random.default_rng(0)
    assert fresh.backbone_sha256 == build_model(config_from_table(table)).backbone_sha256
    arrays = {n: (a + rng.normal(0, 0.05, a.shape)).astype(np.float32) for n, a in get_arrays(fresh).items()}
    place = next(name.removesuffix(".residual_b") for name in arrays if name.endswith(".residual_b"))
    frozen = _weights(fresh)[f"{place}.frozen.weight"].copy()
    plain, untouched = merge_trained(fresh, arrays)  # fresh holds the trained arrays from here on
    b, a, left, right = (arrays[f"{place}.{n}"].astype(np.float64) for n in ("lora_b", "lora_a", "residual_b", "residual_a"))
    np.testing.assert_allclose(_weights(plain)[f"{place}.weight"], frozen + 3.0 * (b @ a + left @ right), atol=1e-6)
    np.testing.assert_array_equal(untouched[f"{place}.weight"], frozen)
    torch.testing.assert_close(plain(*patients()).logits, fresh(*patients()).logits, rtol=0, atol=1e-5)
    save_exported(tmp_path / "model.safetensors", plain, untouched, config, None)
    opened = trained_model(open_exported(tmp_path / "model.safetensors"))
    torch.testing.assert_close(opened(*patients()).logits, plain(*patients()).logits, rtol=0, atol=1e-6)
    x, present = patients()
    dense = DenseModel(plain, len(config.task.classes), 0.1)(x, present)
    torch.testing.assert_close(dense, (fresh(x, present).logits[:, :3] / 0.1).softmax(-1), rtol=0, atol=1e-4)
    without = {n: np.zeros_like(a) if ".residual_" in n else a for n, a in arrays.items()}
    assert (merge_trained(fresh, without)[0](x, present).logits - plain(x, present).logits).abs().max() > 1e-3


def test_a_merged_map_is_the_closed_form_and_the_model_is_not_changed():
    fresh, arrays, config = trained()
    lora = fresh.vit.blocks[1].attn.qkv
    plain, untouched = merge_trained(fresh, arrays)
    a, b = (arrays[f"vit.blocks.1.attn.qkv.lora_{which}"].astype(np.float64) for which in "ab")
    frozen = lora.frozen.weight.detach().numpy()
    expected = frozen + config.model.adapter.alpha / config.model.adapter.rank * b @ a
    np.testing.assert_allclose(plain.vit.blocks[1].attn.qkv.weight.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(untouched["vit.blocks.1.attn.qkv.weight"], frozen)
    assert isinstance(fresh.vit.blocks[1].attn.qkv, Adapted)
    assert isinstance(plain.vit.blocks[1].attn.qkv, torch.nn.Linear)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "size", "joint"), BACKBONES)
@torch.inference_mode()
def test_the_dense_graph_equals_the_grouped_model(backbone, size, joint):
    fresh, arrays, _ = trained(backbone, size, joint_blocks=joint)
    set_arrays(fresh, arrays)
    x, present = patients(size)
    expected = (fresh(x, present).logits[:, :3].double() / 0.15).softmax(-1).float()
    garbage = torch.where(present.view(5, 1, 4, 1, 1), x, torch.full_like(x, 1e3))
    torch.testing.assert_close(DenseModel(fresh, 3, 0.15)(garbage, present), expected, rtol=0, atol=1e-5)
    moved = (fresh(x, present).logits[:, :3].double() / 0.15 + torch.tensor([1.0, -2.0, 0.5])).softmax(-1).float()
    torch.testing.assert_close(DenseModel(fresh, 3, 0.15, (1.0, -2.0, 0.5))(garbage, present), moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["centre", "attention"])
@torch.inference_mode()
def test_a_pooling_is_in_the_dense_graph_and_in_the_file(pooling, tmp_path):
    fresh, arrays, config = trained(pooling=pooling)
    arrays |= {n: 50 * a for n, a in arrays.items() if n.startswith("pool.")}
    path, (x, present) = tmp_path / "model.safetensors", patients()
    save_exported(path, *merge_trained(fresh, arrays), config, None)
    opened = trained_model(open_exported(path))
    expected = (fresh(x, present).logits[:, :3].double() / 0.15).softmax(-1).float()
    mean, _, _ = trained()
    set_arrays(mean, {n: a for n, a in arrays.items() if not n.startswith("pool.")})
    assert (mean(x, present).logits - fresh(x, present).logits).abs().max() > 1e-3
    torch.testing.assert_close(DenseModel(opened, 3, 0.15)(x, present), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_file_alone_gives_the_trained_model_and_the_untouched_backbone(exported):
    path, fresh, config = exported
    opened = open_saved(read_saved(path))
    x, present = patients()
    expected = fresh(x, present).logits
    own = {name: torch.from_numpy(array) for name, array in opened.arrays.items()}
    torch.testing.assert_close(functional_call(opened.model, own, (x, present)).logits, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(trained_model(opened)(x, present).logits, expected, rtol=0, atol=1e-5)
    untouched = build_model(config).eval().vit.forward_features(x[:, 0, :1].expand(-1, 3, -1, -1))
    assert torch.equal(opened.model.vit.forward_features(x[:, 0, :1].expand(-1, 3, -1, -1)), untouched)
    assert opened.calibration == Calibration(temperature=1.5, offsets=(0.5, 0.25, -0.75))
    assert np.array_equal(opened.reference["ood.count"], REFERENCE["ood.count"])
    assert (opened.model.backbone_name, opened.model.backbone_sha256) == (fresh.backbone_name, fresh.backbone_sha256)
    assert opened.config.data == config.data


def test_a_calibration_of_other_classes_is_refused(exported):
    opened = open_saved(read_saved(exported[0]))
    with pytest.raises(FedMRIError, match="2 class offsets, the model 3 classes"):
        replace(opened, calibration=Calibration(offsets=(0.5, -0.5)))


def test_every_adapter_can_be_opened_again(tmp_path):
    for adapter in ADAPTERS:
        fresh, arrays, config = trained(adapter=adapter)
        save_exported(tmp_path / adapter, *merge_trained(fresh, arrays), config, None)
        opened = open_exported(tmp_path / adapter)
        with torch.inference_mode():
            found, expected = trained_model(opened)(*patients()).logits, fresh(*patients()).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert opened.calibration is None
        assert (
            read_saved(tmp_path / adapter)
            .metadata["adapter"]
            .startswith("kept as modules" if adapter == "bottleneck" else "merged")
        )


def test_equal_models_give_equal_files_and_no_machines_path(tmp_path):
    for name in ("one", "two"):
        fresh, arrays, config = trained()
        section = {**json.loads(config.to_json()), "seed": 3}
        section["model"]["weights"] = f"/home/{name}/deit.safetensors"
        save_exported(tmp_path / name, *merge_trained(fresh, arrays), config_from_table(section), None)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays, meta: meta.update(format="fedmri-model-9"), "expected format"),
        (lambda arrays, meta: meta.pop("config"), "lack the configuration"),
        (lambda arrays, meta: meta.pop("pixel_mean"), "do not belong together"),
        (lambda arrays, meta: meta.update(pixel_std="[1, 2]"), "do not belong together"),
        (lambda arrays, meta: meta.update(calibration="{}"), "do not belong together"),
        (lambda arrays, meta: arrays.pop("head.prototypes"), "do not belong together"),
        (lambda arrays, meta: arrays.update(extra=np.zeros(1, np.float32)), "do not belong together"),
        (lambda arrays, meta: arrays.update({"vit.norm.bias": np.zeros(3, np.float32)}), "do not belong together"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(exported, tmp_path, change, words):
    arrays, metadata = load_arrays(exported[0])
    change(arrays, metadata)
    save_arrays(tmp_path / "model.safetensors", arrays, metadata)
    with pytest.raises(WeightsError, match=words):
        open_exported(tmp_path / "model.safetensors")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 4000), byte=st.integers(0, 255))
def test_a_damaged_header_is_an_error_of_ours_or_harmless(exported, tmp_path, where, byte):
    content = bytearray(exported[0].read_bytes())
    content[where] = byte
    (tmp_path / "damaged").write_bytes(content)
    with suppress(FedMRIError):
        open_exported(tmp_path / "damaged")


def test_merging_twice_changes_nothing():
    fresh, arrays, _ = trained()
    plain, _ = merge_trained(fresh, arrays)
    again = merge(plain).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in plain.state_dict().items())
