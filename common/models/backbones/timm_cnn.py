"""timm's ResNet (He et al., CVPR 2016), DenseNet (Huang et al., CVPR 2017) and VGG (Simonyan and Zisserman, ICLR 2015).

A CNN sees each modality by itself: the cells of its last feature map are the patch tokens, and modalities meet afterwards, in a
mean over their cells, which stands in the place of CLS. Its blocks are its stages, and nothing in them attends. Batch norms keep
the statistics of their own training: those of a few patients are none, and no arrays that sites train.

n images, h x w cells, P = h w, N = 1 + P tokens, D channels of the last stage.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from common.errors import ConfigError, WeightsError
from common.models.backbones.backbone import Backbone, Tokens, require_whole_patches, with_mean
from common.models.without_compiler import without_compiler

with without_compiler():
    import timm
    from timm.models.densenet import DenseNet
    from timm.models.resnet import ResNet
    from timm.models.vgg import VGG

STRIDE = 32  # pixels of an image to a cell of the last map, in all three
RESNET = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
EDGE = 8  # of the smallest map that all stages take
HEADS = ("fc.", "classifier.", "head.", "pre_logits.")
COUNTS = "num_batches_tracked"
NORM = nn.modules.batchnorm._BatchNorm


class Behind(nn.Identity):
    """What stands behind a stage: where a bottleneck adapter is put, on channels last [n, h, w, C]. `width`: C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


class Stage(nn.Module):
    """Layers of one resolution, and the place behind them; [n, C', H, W] to [n, C, H', W']."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(layers))
        self.behind = Behind(_channels(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        behind: Tensor = self.behind(self.layers(x).permute(0, 2, 3, 1))
        return behind.permute(0, 3, 1, 2)


class Stages(nn.Module):
    """A CNN without its head."""

    def __init__(self, stages: list[Mapping[str, nn.Module]]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Stage(layers) for layers in stages)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Never: batch norms would measure anew."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] to the last map [n, D, h, w]."""
        for stage in self.blocks:
            images = stage(images)
        return images


@dataclass(frozen=True, eq=False)
class TimmCNN(Backbone):
    """Stages of a timm CNN; `settings`: timm's configuration of its weights."""

    stages: Stages
    settings: Mapping[str, Any]

    attends: ClassVar[bool] = False
    linear_maps: ClassVar[Mapping[str, str]] = {}
    mlp: ClassVar[str] = "behind"

    @classmethod
    def knows(cls, name: str) -> bool:
        """By timm's own list."""
        return bool(timm.models.is_model_in_modules(name, {"resnet", "densenet", "vgg"}))

    @classmethod
    def near(cls, name: str) -> list[str]:
        """None: timm's list is one, and the other family asks it."""
        del name
        return []

    @classmethod
    def create(cls, name: str, size: int, *, filled: bool = False) -> Self:
        """Untrained; timm always draws, whatever will be replaced."""
        del filled
        return cls.of(timm.create_model(name, pretrained=False, num_classes=0), name, size)

    @classmethod
    def from_hub(cls, name: str, size: int) -> Self:
        """Download through timm; if the weights cannot be had, the error says how to get them."""
        require_whole_patches(size, STRIDE, name)
        try:
            return cls.of(timm.create_model(name, pretrained=True, num_classes=0), name, size)
        except Exception as error:  # the hub's libraries raise many kinds; none may end in random weights
            raise WeightsError(
                f"Backbone {name}: its pre-trained weights could not be had from the hub ({type(error).__name__}). Name a local "
                "safetensors or .pth file with --set weights=FILE."
            ) from error

    @classmethod
    def of(cls, cnn: nn.Module, name: str, size: int) -> Self:
        """A module that timm made."""
        require_whole_patches(size, STRIDE, name)
        return cls(Stages(_stages(cnn)), dict(getattr(cnn, "pretrained_cfg", None) or {}))

    def own_arrays(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's and torchvision's names are the same, but in old DenseNet files; the head is left out.

        What counts batches means nothing here, and old files lack it.
        """
        names = self.stages.state_dict()
        place = {name.split(".")[3]: name.partition(".layers.")[0] for name in names}
        found = {name: torch.zeros(()) for name in names if name.endswith(COUNTS)}
        for name, array in state.items():
            if not name.startswith(HEADS) and not name.endswith(COUNTS):
                plain = _as_now(name.removeprefix("features."))
                stage = place.get(plain.partition(".")[0])
                found[f"{stage}.layers.{plain}" if stage else name] = array
        return found

    @property
    def module(self) -> nn.Module:
        """The stages."""
        return self.stages

    @property
    def width(self) -> int:
        """D."""
        return self.block_width(self.blocks[-1])

    @property
    def patch(self) -> int:
        """Pixels from cell to cell; a cell sees more of the image than that."""
        return STRIDE

    @property
    def prefixes(self) -> int:
        """The mean over cells."""
        return 1

    @property
    def pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By timm's configuration of the weights."""
        return self.settings.get("mean", (0.5, 0.5, 0.5)), self.settings.get("std", (0.5, 0.5, 0.5))

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages in their order."""
        return list(self.stages.blocks)

    def block_width(self, block: nn.Module) -> int:
        """Channels that leave a stage."""
        return next(module.width for module in block.modules() if isinstance(module, Behind))

    def norms(self, blocks: list[nn.Module]) -> Iterator[nn.Parameter]:
        """Scales and shifts of the stages' batch norms."""
        for block in blocks:
            yield from (value for module in block.modules() if isinstance(module, NORM) for value in module.parameters())

    def grid(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] to [n, h, w, D]: all that the CNN computes."""
        found: Tensor = self.stages(images)
        return found.permute(0, 2, 3, 1)

    def tokens(self, grid: Tensor) -> Tokens:
        """Cells have no positions. The prefix holds the place of the mean, and zeros until `encode`."""
        return Tokens(grid.new_zeros(1, 1, grid.shape[-1]), grid.flatten(1, 2), None)

    def encode(self, z: Tensor, start: int, stop: int, rope: Tensor | None = None, attended: Tensor | None = None) -> Tensor:
        """[n, N, D] to [n, N, D]: behind the last stage the mean over the cells that are there takes the first place."""
        del start, rope
        return z if stop < len(self.blocks) else with_mean(z, attended)

    def features(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] to [n, N, D]."""
        prefix, cells, _ = self.tokens(self.grid(images))
        return self.encode(torch.cat([prefix.expand(len(cells), -1, -1), cells], dim=1), 0, len(self.blocks))


def _stages(cnn: nn.Module) -> list[Mapping[str, nn.Module]]:
    """The layers of each stage by timm's names; where a stage ends, a coarser map begins."""
    if isinstance(cnn, ResNet):
        layers, ends = {name: cnn.get_submodule(name) for name in RESNET}, {"maxpool", "layer1", "layer2", "layer3"}
    elif isinstance(cnn, DenseNet):
        layers = dict(cnn.features.named_children())
        ends = {name for name in layers if name.startswith(("pool", "transition"))}
    elif isinstance(cnn, VGG):
        layers = dict(cnn.features.named_children())
        ends = {name for name, layer in layers.items() if isinstance(layer, nn.MaxPool2d)}
    else:
        raise ConfigError(f"model.backbone: expected a ResNet, DenseNet or VGG, got a {type(cnn).__name__}.")
    found: list[dict[str, nn.Module]] = [{}]
    for name, layer in layers.items():
        found[-1][name] = layer
        if name in ends:
            found.append({})
    return [stage for stage in found if stage]


def _channels(layers: nn.Module) -> int:
    """Channels that leave some layers: of the last convolution, or of all that a dense block joins, as its next norm knows."""
    with torch.no_grad():
        first = next(module for module in layers.modules() if isinstance(module, nn.Conv2d | NORM))
        width = first.in_channels if isinstance(first, nn.Conv2d) else first.num_features
        return int(layers.eval()(torch.zeros(1, int(width), EDGE, EDGE)).shape[1])


def _as_now(name: str) -> str:
    """DenseNet's layers were `norm.1` in torchvision's first files, and are `norm1`."""
    head, layer, tail = name.rpartition("denselayer")
    return f"{head}{layer}{tail.replace('norm.', 'norm').replace('conv.', 'conv')}" if layer else name
