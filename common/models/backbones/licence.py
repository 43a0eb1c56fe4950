"""The licence of frozen weights, as far as it can be known: for report, model card and bundle."""

from common.config.sections import ModelConfig
from common.models.backbones.named import NAMED, VOLUMES, timm_name
from common.models.backbones.weights import SHIPPED_FILES


def weights_licence(model: ModelConfig) -> str:
    """In words. Of a local file it is that of the weights for which timm uses this name: whose file it is, nobody can tell."""
    from common.models.without_compiler import without_compiler  # noqa: PLC0415  (torch)

    if model.weights in SHIPPED_FILES:
        return "apache-2.0 (shipped with FedMRI)"
    if model.weights == "random":
        return "none: the backbone was not trained"
    if model.backbone in NAMED:
        row = NAMED[model.backbone]
        return f"{row.licence} ({row.source})"
    if model.backbone in VOLUMES:
        volume = VOLUMES[model.backbone]
        return f"{volume.licence} ({volume.source})" if volume.licence else "not known: ask whoever made them"
    with without_compiler():
        import timm  # noqa: PLC0415

    name, _ = timm_name(model.backbone)
    settings = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    named = getattr(settings, "license", None)
    return f"{named} (according to timm, of {name})" if named else "not known: ask whoever made them"
