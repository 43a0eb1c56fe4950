"""A trained model as one self-contained file: all weights, merged, and the metadata to use them. No hub, no other file.

NAME             every array of the merged model, under the names of its `state_dict`
untouched.NAME   what training or merging changed in the backbone, as it was: out-of-distribution scores look at it
reference.NAME   the sums that those scores compare with, where the run has them
metadata         format, backbone, backbone_sha256, config, classes, adapter, pixel_mean, pixel_std, calibration (or "")
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from common.config.run import RunConfig, config_from_json
from common.errors import FedMRIError, WeightsError
from common.evaluation.calibration.calibration import Calibration
from common.model_files.merge import kept_modules, merge
from common.model_files.opened_model import OpenedModel
from common.models.adapted import adapt
from common.models.arrays import Arrays, load_arrays, save_arrays, set_arrays
from common.models.backbones.create import empty_backbone
from common.models.build import assemble
from common.models.multimodal import MultiModalViT
from common.models.public_features import no_values

FORMAT = "fedmri-model-1"
UNTOUCHED, REFERENCE = "untouched.", "reference."


def merge_trained(fresh: MultiModalViT, arrays: Arrays) -> tuple[MultiModalViT, Arrays]:
    """The merged trained model, and the arrays of the untouched backbone that differ from it.

    Args:
        fresh: from `build_model`; its arrays are set to the trained ones.
        arrays: the trained ones.

    Raises:
        FederationError: they do not belong to this model.
    """
    before = _state(merge(fresh))
    set_arrays(fresh, arrays)
    plain = merge(fresh)
    after = _state(plain)
    changed = {n: a for n, a in before.items() if n.startswith("vit.") and not np.array_equal(a, after[n])}
    return plain, changed


def save_exported(
    path: Path,
    plain: MultiModalViT,
    untouched: Arrays,
    config: RunConfig,
    calibration: tuple[Calibration, Arrays] | None,
) -> None:
    """Write the file, whole or not at all; equal models give equal bytes.

    Args:
        path: of the safetensors file.
        plain: the model with its adapters merged, as `merge_trained` gives it.
        untouched: of the backbone, the arrays that merging changed, as they were; from `merge_trained` too.
        config: of the run, written into the file's metadata.
        calibration: as `load_calibration` gives it.
    """
    reference = calibration[1] if calibration else {}
    arrays = _state(plain)
    arrays |= {UNTOUCHED + name: array for name, array in untouched.items()}
    arrays |= {REFERENCE + name: array for name, array in reference.items()}
    save_arrays(path, arrays, _metadata(plain, config, calibration[0] if calibration else None))


def open_exported(path: Path) -> OpenedModel:
    """Read the file; needs timm for the architecture, and nothing else. `common.model_files.open.open_saved` comes here by
    itself.

    Raises:
        WeightsError: absent, damaged, another format, or arrays that are not the architecture's.
        ConfigError: a configuration that this version does not know.
    """
    stored, metadata = load_arrays(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"Model file {path}: expected format {FORMAT}, got {metadata.get('format', 'none')[:40]!r}. "
            "`fedmri-server export RUN` makes such a file of a run's folder."
        )
    config = _config(path, metadata)
    reference, untouched = _under(stored, REFERENCE), _under(stored, UNTOUCHED)
    trained = {n: a for n, a in stored.items() if not n.startswith((REFERENCE, UNTOUCHED))}
    model = _empty_model(config)
    try:
        _set_pixels(model, metadata)
        for arrays in (trained, trained | untouched):  # each must fit by itself
            model.load_state_dict(_tensors(arrays))
        calibration = Calibration.from_json(metadata["calibration"]) if metadata["calibration"] else None
        model.backbone_name, model.backbone_sha256 = metadata["backbone"], metadata["backbone_sha256"]
    except (RuntimeError, KeyError, ValueError, TypeError, FedMRIError) as error:
        detail = " ".join(str(error).split())[:200]
        raise WeightsError(f"Model file {path}: its parts do not belong together ({detail}). Take the file anew.") from error
    return OpenedModel(model.eval().requires_grad_(False), trained, config, calibration, reference)


def trained_model(opened: OpenedModel) -> MultiModalViT:
    """The exported model with the trained arrays inside; `opened` keeps its own."""
    model = copy.deepcopy(opened.model)
    model.load_state_dict(_tensors(opened.arrays))
    return model


def _state(model: MultiModalViT) -> Arrays:
    """All arrays of a model as float32."""
    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in model.state_dict().items()}


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _metadata(plain: MultiModalViT, config: RunConfig, calibration: Calibration | None) -> dict[str, str]:
    weights, public = (Path(file).name for file in (config.model.weights, config.model.public_features))
    portable = replace(config, model=replace(config.model, weights=weights, public_features=public))  # no machine's path
    return {
        "format": FORMAT,
        "backbone": plain.backbone_name,
        "backbone_sha256": plain.backbone_sha256,
        "classes": json.dumps(list(config.task.classes)),
        "config": portable.to_json(),
        "adapter": "kept as modules: " + ", ".join(kept_modules(plain)) if kept_modules(plain) else "merged",
        "pixel_mean": json.dumps([float(value) for value in plain.pixel_mean.flatten()]),
        "pixel_std": json.dumps([float(value) for value in plain.pixel_std.flatten()]),
        "calibration": calibration.to_json() if calibration else "",
    }


def _config(path: Path, metadata: Mapping[str, str]) -> RunConfig:
    try:
        return config_from_json(metadata["config"])
    except KeyError as error:
        raise WeightsError(f"Model file {path}: its metadata lack the configuration. Take the file anew.") from error


def _empty_model(config: RunConfig) -> MultiModalViT:
    """The merged architecture; what its arrays hold is overwritten."""
    generator = torch.Generator().manual_seed(0)
    backbone = empty_backbone(config.model.backbone, config.data.size, filled=True)
    if not config.model.adapter.mergeable:
        adapt(backbone, config.model, generator)
    public = no_values(config, backbone.width) if config.model.public_features else None
    return assemble(backbone, config, generator, public)


def _set_pixels(model: MultiModalViT, metadata: Mapping[str, str]) -> None:
    """Set the pixel statistics that the model was trained with, in place of timm's."""
    for name in ("pixel_mean", "pixel_std"):
        setattr(model, name, torch.tensor(json.loads(metadata[name]), dtype=torch.float32).view(3, 1, 1))
