"""Opens a trained model: a run's folder, its model file, or an exported one; its metadata are checked.

The header is read without torch, so that a command can start on the images while torch is still being loaded.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.config.run import RunConfig, config_from_json
from common.errors import ConfigError, WeightsError
from common.evaluation.calibration.calibration import CALIBRATION_NAME, load_calibration
from common.model_files.opened_model import OpenedModel
from common.model_files.unfinished import unfinished
from common.models.arrays import check_arrays, get_arrays, load_arrays, plain_metadata
from common.run_folder import MODEL_NAME

NEEDED = ("config", "backbone", "backbone_sha256")


@dataclass(frozen=True)
class SavedModel:
    """A model file's configuration and metadata.

    Attributes:
        file: the file itself.
        config: of the run that trained it.
        metadata: all entries, as text.
    """

    file: Path
    config: RunConfig
    metadata: dict[str, str]

    @property
    def unfinished(self) -> str:
        """How far the run was that left it, in a sentence; "": nothing says that it has not finished."""
        return unfinished(self.file, self.metadata, self.config.federation.rounds)


def read_saved(path: Path) -> SavedModel:
    """Read a model's header.

    Args:
        path: a run's folder, its model file, or a file that `fedmri-server export` made.

    Raises:
        ConfigError: no such file or folder.
        WeightsError: no model in it, damaged, or made by something else.
    """
    file = path / MODEL_NAME if path.is_dir() else path
    if not file.is_file():
        kind = f"the run's folder holds no {MODEL_NAME}: has it finished?" if path.is_dir() else "no such file or folder."
        raise ConfigError(f"Model {path}: {kind} Name a finished run's folder, or its {MODEL_NAME}.")
    try:
        with safe_open(file, framework="numpy") as content:
            metadata = plain_metadata(content.metadata())
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"Model file {file}: not a readable safetensors file ({error}). Take it anew.") from error
    missing = [name for name in NEEDED if name not in metadata]
    if missing:
        raise WeightsError(
            f"Model file {file}: its metadata lack {', '.join(missing)}, so it is no trained model of FedMRI. Name a run's "
            f"folder, or its {MODEL_NAME}; the backbone's own weights belong to --weights."
        )
    return SavedModel(file, config_from_json(metadata["config"]), metadata)


def open_saved(saved: SavedModel, weights: str = "") -> OpenedModel:
    """Build the model and fill in what was trained. Every kind of model file comes through here.

    Args:
        saved: the file, its configuration and its metadata.
        weights: local file of the backbone's weights; "": what the run's `model.weights` says.

    Raises:
        WeightsError: the backbone's weights are not there, or are not those that the model was trained on.
        FederationError: arrays that do not fit the configuration.
        FedMRIError: a calibration beside the model that cannot be used.
    """
    from common.model_files.exported import open_exported  # noqa: PLC0415
    from common.models.build import build_model  # noqa: PLC0415  (torch and timm: seconds)

    if "format" in saved.metadata:  # of `fedmri-server export`: holds its backbone and its calibration itself
        return open_exported(saved.file)
    config = saved.config
    if weights:
        config = replace(config, model=replace(config.model, weights=weights))
    try:
        model = build_model(config, public="wire")  # the file holds all arrays that travelled
    except WeightsError as error:
        raise WeightsError(f"{error} A prediction names it with --weights FILE.") from error
    if model.backbone_sha256 != saved.metadata["backbone_sha256"]:
        raise WeightsError(
            f"Backbone {model.backbone_name}: the model was trained on weights with SHA-256 "
            f"{saved.metadata['backbone_sha256'][:12]}, these have {model.backbone_sha256[:12]}. "
            "Name the right file with --weights."
        )
    arrays, _ = load_arrays(saved.file)
    check_arrays(arrays, get_arrays(model))
    beside = saved.file.with_name(CALIBRATION_NAME)
    calibration, reference = load_calibration(beside) if beside.is_file() else (None, {})
    return OpenedModel(model.eval(), arrays, config, calibration, reference, saved.unfinished)
