"""`fedmri-server export`: a run becomes a release, whole and checked, or nothing.

RELEASE/model.safetensors   all weights, merged; `fedmri-site predict` opens it
RELEASE/model.onnx          images and present to calibrated probabilities
RELEASE/bundle/             the MONAI bundle
RELEASE/MODEL_CARD.md
RELEASE/MANIFEST.json       SHA-256 of every file; MANIFEST.json.minisig signs it
"""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.cli import CONFIGS
from common.config.classes import require_classes
from common.config.pictures import require_volumes
from common.config.volume import require_slices
from common.errors import ConfigError, FedMRIError
from common.files import sync_folder, write_atomic
from common.model_files.dense import DenseModel
from common.model_files.exported import merge_trained, save_exported
from common.model_files.merge import kept_modules
from common.model_files.open import open_saved, read_saved
from common.model_files.opened_model import OpenedModel
from common.models.backbones.licence import weights_licence
from common.models.multimodal import MultiModalViT
from server.release.card import intended_use, model_card
from server.release.equivalence import check_files
from server.release.graphs import require_packages, write_onnx
from server.release.manifest import write_manifest
from server.release.monai_bundle import readme, write_bundle
from server.release.run_name import run_name
from server.report.report import decode, read_report

CARD = "MODEL_CARD.md"

Say = Callable[[str], None]  # what is being done


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        run: folder of the finished run.
        out: folder of the release; it must not be there.
        weights: local file of the backbone's weights; "": what the run's configuration says.
        site: patients to check with; None: seeded noise.
        version: of the release.
        private: key to sign with; None: it is left unsigned.
    """

    run: Path
    out: Path
    weights: str = ""
    site: Path | None = None
    version: str = "1.0.0"
    private: Ed25519PrivateKey | None = None


def export(wanted: ExportRequest, say: Say) -> list[dict[str, Any]]:
    """Write the release, check it, sign it; `out` appears when all is done.

    Returns:
        What was checked: `file`, `patients`, `difference`, `source`.

    Raises:
        ConfigError: `out` is there, packages are missing.
        FedMRIError: the run or its weights cannot be used, or a file differs from the trained model.
    """
    require_packages()
    if wanted.out.exists():
        raise ConfigError(f"{wanted.out} is there already. Name a folder that is not: a release is never written over.")
    report = read_report(wanted.run)
    say("Opening the trained model")
    saved = read_saved(wanted.run)
    require_classes(saved.config, "Export")
    require_volumes(saved.config, "Export")
    require_slices(saved.config, "Export")
    trained = open_saved(saved, wanted.weights)
    draft = wanted.out.parent / f".{wanted.out.name}.{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        checks = _write(draft, wanted, trained, report, say)
        os.rename(draft, wanted.out)
        sync_folder(wanted.out.parent)
    except OSError as error:
        place, why = error.filename or wanted.out, error.strerror or error
        raise FedMRIError(f"Export: {place}: {why}. No release was made; name a folder with room for it by --out.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return checks


def _write(draft: Path, wanted: ExportRequest, trained: OpenedModel, report: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    """All files into the draft. The card comes after the checks, which stand in it."""
    config = trained.config
    say("Merging the adapters")
    plain = _save(draft, trained)
    dense = _dense(plain, trained)
    say("Writing ONNX")
    write_onnx(draft / "model.onnx", dense, config.data)
    say("Writing the MONAI bundle")
    write_bundle(draft / "bundle", dense, config, _about(wanted, trained, report), _licence(trained))
    say("Checking every file against the trained model")
    checks = check_files(draft, trained, wanted.site)
    kept = kept_modules(plain)
    adapter = f"cannot be merged, kept as modules: {', '.join(kept)}" if kept else "merged into the weights"
    card = model_card(decode(report), config, plain.backbone_sha256, adapter, checks, run_name(wanted.run))
    write_atomic(draft / CARD, card.encode())
    write_atomic(draft / "bundle" / "docs" / "README.md", (readme(config) + card).encode())
    write_atomic(draft / "LICENSE", _licence(trained).encode())
    write_manifest(draft, wanted.private, f"fedmri release {wanted.version}, backbone {plain.backbone_sha256[:16]}")
    return checks


def _save(draft: Path, trained: OpenedModel) -> MultiModalViT:
    """model.safetensors; returns the merged model."""
    plain, untouched = merge_trained(trained.model, trained.arrays)
    calibration = (trained.calibration, trained.reference) if trained.calibration else None
    save_exported(draft / "model.safetensors", plain, untouched, trained.config, calibration)
    return plain


def _dense(plain: MultiModalViT, trained: OpenedModel) -> DenseModel:
    """On the CPU, both temperatures in one."""
    config, scaling = trained.config, trained.scaling
    temperature = config.objective.student_temperature * scaling.temperature
    return DenseModel(plain.cpu().eval(), len(config.task.classes), temperature, scaling.offsets).eval()


def _about(wanted: ExportRequest, trained: OpenedModel, report: dict[str, Any]) -> dict[str, Any]:
    """The contents of metadata.json besides formats."""
    config, external = trained.config, report["external"]
    mcc = external.get("mcc") or {}
    return {
        "name": f"FedMRI {config.model.backbone}",
        "version": wanted.version,
        "description": (
            f"{config.model.backbone} with {config.model.adapter.name}, trained by FedMRI at several hospitals from any of "
            f"{', '.join(config.data.modalities)}; measured on an external hospital of {external.get('n')} "
            "patients. See docs/README.md."
        ),
        "intended_use": intended_use(config),
        "weights_licence": weights_licence(config.model),
        "eval_metrics": {"mcc": mcc.get("value"), "mcc_low": mcc.get("low"), "mcc_high": mcc.get("high")},
    }


def _licence(trained: OpenedModel) -> str:
    """The code's licence, after a line on the weights."""
    file = CONFIGS.parent / "LICENSE"
    code = (
        file.read_text(encoding="utf-8") if file.is_file() else "Apache License, Version 2.0: https://www.apache.org/licenses/\n"
    )
    return f"Weights: {weights_licence(trained.config.model)}.\nCode: as follows.\n\n{code}"
