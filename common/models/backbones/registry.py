"""The families of backbones, asked in this order for the architecture that `model.backbone` names: a line for each."""

from common.models.backbones.backbone import Backbone
from common.models.backbones.monai_vit import MonaiViT
from common.models.backbones.timm_cnn import TimmCNN
from common.models.backbones.timm_vit import TimmViT

FAMILIES: tuple[type[Backbone], ...] = (MonaiViT, TimmCNN, TimmViT)
