"""CNNs behind the protocol: features against timm's own, missing modalities, adapters that fit and those that do not."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from timm.models.densenet import DenseNet
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from common.config.run import RunConfig, config_from_table
from common.config.sections import ModelConfig, ObjectiveConfig
from common.errors import ConfigError
from common.model_files.dense import DenseModel
from common.model_files.merge import merge
from common.models import build
from common.models.arrays import get_arrays
from common.models.backbones.create import create_backbone, family_of
from common.models.backbones.timm_cnn import TimmCNN
from common.models.build import build_model
from common.models.multimodal import MultiModalViT

SMALL = {
    "resnet": lambda: ResNet(cast(Any, Bottleneck), (1, 1, 1, 1), channels=(4, 4, 8, 8), num_classes=0),
    "densenet": lambda: DenseNet(growth_rate=4, block_config=(1, 2, 1, 1), num_classes=0),
    "vgg": lambda: VGG([4, "M", 8, "M", 8, "M", 8, 8, "M", 12, "M"], num_classes=0),
}
WITH_NORMS = ("resnet", "densenet")


def small(kind: str) -> nn.Module:
    """With batch norms that have measured something."""
    torch.manual_seed(0)
    cnn: nn.Module = SMALL[kind]()
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.randn(module.num_features), torch.rand(module.num_features) + 0.5
    return cnn.eval()


@pytest.fixture
def vgg_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG's head has 120 million weights, which are left out after they were drawn."""
    monkeypatch.setattr(nn.init, "normal_", lambda array, *_: array.detach().zero_())


@pytest.mark.parametrize("kind", SMALL)
@torch.inference_mode()
def test_features_are_timms_last_map_and_its_mean(kind: str) -> None:
    cnn, x = small(kind), torch.rand(2, 3, 64, 96)
    theirs: Tensor = cnn.forward_features(x)  # type: ignore[operator]
    backbone = TimmCNN.of(cnn, kind, 64)
    found = backbone.features(x)
    assert (backbone.width, len(backbone.blocks)) == (theirs.shape[1], 5)
    torch.testing.assert_close(found[:, 1:], theirs.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[:, 0], theirs.mean((2, 3)))
    backbone.module.train()
    torch.testing.assert_close(backbone.features(x), found)  # no batch norm measures the batch


@pytest.mark.parametrize("kind", SMALL)
def test_a_torchvision_file_fills_every_array(kind: str) -> None:
    """The layout of torchvision's files: timm's names with a head, in old files without counts of batches."""
    cnn = small(kind)
    state = {name: array.clone() for name, array in cnn.state_dict().items() if "num_batches_tracked" not in name}
    state |= {"fc.weight": torch.zeros(1), "classifier.6.bias": torch.zeros(1)}
    if kind == "densenet":
        state = {name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): array for name, array in state.items()}
    backbone = TimmCNN.of(small(kind), kind, 64)
    for value in backbone.module.state_dict().values():
        value.zero_()
    own = backbone.own_arrays(state)
    assert own.keys() == backbone.module.state_dict().keys()
    backbone.module.load_state_dict(own)
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = cnn.forward_features(x)  # type: ignore[operator]
        torch.testing.assert_close(backbone.grid(x), expected.permute(0, 2, 3, 1))


def config_of(**model: Any) -> RunConfig:
    table = {"model": {"backbone": "resnet18", "weights": "random", **model}, "data": {"size": 64}}
    return config_from_table({**table, "objective": {"terms": {"ibot": {"weight": 0.0}}}})


@pytest.fixture
def model_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model on the small CNN of a kind."""

    def make(kind: str, **model: Any) -> MultiModalViT:
        monkeypatch.setattr(build, "create_backbone", lambda *_: (TimmCNN.of(small(kind), kind, 64), ""))
        return build_model(config_of(**model)).eval()

    return make


@torch.inference_mode()
def test_a_modality_is_seen_by_itself_and_an_absent_one_counts_for_nothing(model_of: Any) -> None:
    model = model_of("resnet", adapter="head")
    x, present = torch.rand(2, 3, 4, 64, 64), torch.tensor([[True, True, False, True], [False, True, False, False]])
    cls, patches = model.features(x, present)
    for row, seen in enumerate(present):
        alone = model.backbone.features(model.pixels(x[row])).view(3, 4, 5, -1)  # by slice and modality: the mean, 4 cells
        torch.testing.assert_close(patches[row][:, seen], alone[:, seen, 1:])
        torch.testing.assert_close(cls[row], alone[:, seen, 0].mean(1))
    assert not patches[~present.view(2, 1, 4).expand(-1, 3, -1)].any()
    dense = DenseModel(model, 3, 1.0).features(x, present)
    torch.testing.assert_close(dense.cls, cls)


@pytest.mark.parametrize(
    ("kind", "adapter", "part"),
    [
        ("resnet", "bottleneck", "behind.up"),
        ("densenet", "bottleneck", "behind.up"),
        ("vgg", "bottleneck", "behind.up"),
        ("vgg", "bitfit", "layers.6.bias"),
        ("resnet", "bitfit", "bn1.bias"),
        ("densenet", "full", "conv0.weight"),
    ],
)
def test_adapters_that_fit_start_as_the_frozen_one_learn_and_merge(kind: str, adapter: str, part: str, model_of: Any) -> None:
    x, present = torch.rand(2, 1, 4, 64, 64), torch.ones(2, 4, dtype=torch.bool)
    plain, model = model_of(kind, adapter="head"), model_of(kind, adapter=adapter)
    assert torch.equal(model.features(x, present).cls, plain.features(x, present).cls)
    said = model(x, present, torch.rand(2, 1, 4, 4) < 0.3, torch.rand(2, 1, 4, 4) < 0.5)
    (said.logits.square().sum() + said.patch_logits.square().sum()).backward()
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in named.values())
    assert any(part in name for name in named)
    with torch.no_grad():
        for value in named.values():
            value.add_(0.01 * torch.randn_like(value))
        torch.testing.assert_close(merge(model)(x, present).logits, model(x, present).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", WITH_NORMS)
def test_norms_are_trained_where_the_configuration_says_so(kind: str, model_of: Any) -> None:
    with_norms = get_arrays(model_of(kind, adapter="bottleneck"))
    without = get_arrays(model_of(kind, adapter="bottleneck", train_norms=False))
    norms = with_norms.keys() - without.keys()
    assert len(norms) == 2 * sum(isinstance(module, nn.BatchNorm2d) for module in small(kind).modules())
    last = get_arrays(model_of(kind, adapter="bottleneck", blocks=1)).keys() - without.keys()
    assert 0 < len(last) < len(norms)


def test_what_does_not_fit_is_refused_by_name(model_of: Any) -> None:
    for adapter in ("lora", "dora"):
        with pytest.raises(ConfigError, match=f"'{adapter}' changes linear maps.*bottleneck"):
            model_of("resnet", adapter=adapter)
    with pytest.raises(ConfigError, match=r"model.joint_blocks: .*Set it to 0"):
        model_of("resnet", adapter="head", joint_blocks=2)
    model_of("resnet", adapter="head")
    with pytest.raises(ConfigError, match=r"ibot.weight: .*Set it to 0"):
        build_model(replace(config_of(adapter="head"), objective=ObjectiveConfig()))
    with pytest.raises(ConfigError, match=r"data.size: 100 .* take 96"):
        TimmCNN.of(small("vgg"), "vgg16", 100)


def test_the_families_are_told_apart_by_name() -> None:
    for name in ("resnet50.tv_in1k", "densenet121", "vgg16"):
        assert family_of(name) is TimmCNN


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("resnet50", 2048), ("densenet121", 1024), ("vgg16", 512)])
def test_the_three_of_the_glioma_study(name: str, width: int, vgg_is_small: None) -> None:
    backbone, _ = create_backbone(ModelConfig(backbone=name, weights="random"), 64)
    assert backbone.width == width
