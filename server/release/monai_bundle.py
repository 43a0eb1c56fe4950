"""The MONAI bundle: a folder that `python -m monai.bundle run` works with, without FedMRI.

configs/inference.json, configs/metadata.json   what runs, and what it is
models/model.ts                                 the dense model as TorchScript
scripts/                                        cutting of slices: our own, since no stock transform scales by a foreground;
                                                and how a table's words are read, where the model takes clinical covariates
docs/README.md, LICENSE
"""

import ast
import json
from dataclasses import asdict, astuple
from importlib.metadata import version
from pathlib import Path
from typing import Any

import server.release.monai_patients as patients
from common.config import covariates
from common.config.modalities import MODALITIES, Quantity
from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.config.site import MASK, MASKS
from common.data import volumes
from common.files import write_atomic
from common.model_files.dense import DenseModel
from server.release.graphs import write_torchscript

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
OURS = {"DataConfig", "Case", "DataError", "MODALITIES"}  # what speaks of these stays at home
HOME, AWAY = "from common.data.volumes import", "from scripts.volumes import"
WORDS = ("from common.config.covariates import", "from scripts.covariates import")


def write_bundle(folder: Path, dense: DenseModel, config: RunConfig, about: dict[str, Any], licence: str) -> None:
    """Write the bundle into a new folder.

    Args:
        folder: new, or without a `models` in it.
        dense: the model with its adapters merged.
        config: of the run.
        about: `name`, `version`, `description`, `intended_use`, `weights_licence`, `eval_metrics`.
        licence: text of the LICENSE file.
    """
    (folder / "models").mkdir(parents=True)
    write_torchscript(folder / "models" / "model.ts", dense, config.data)
    texts = {
        "configs/inference.json": _json(inference(config)),
        "configs/metadata.json": _json(metadata(config, about)),
        "scripts/__init__.py": '"""Preprocessing that MONAI does not bring, copied from FedMRI (Apache-2.0)."""\n',
        "scripts/volumes.py": pure_source(Path(volumes.__file__).read_text(encoding="utf-8")),
        "scripts/patients.py": Path(patients.__file__).read_text(encoding="utf-8").replace(HOME, AWAY).replace(*WORDS),
        "scripts/covariates.py": alone(Path(covariates.__file__).read_text(encoding="utf-8")),
        "docs/README.md": readme(config),
        "LICENSE": licence,
    }
    for name, text in texts.items():
        write_atomic(folder / name, text.encode("utf-8"))


def inference(config: RunConfig) -> dict[str, Any]:
    """configs/inference.json."""
    data = config.data
    rows = {name: MODALITIES[name] for name in data.modalities}
    # BIDS names; `files` in the configuration takes any others.
    files = {name: f"**/*_{row.pattern}.nii*" for name, row in rows.items()} | {MASK: list(MASKS)}
    return {
        "imports": ["$import torch", "$from pathlib import Path", "$import scripts.patients as preparation"],
        "bundle_root": "$Path(preparation.__file__).resolve().parents[1].as_posix()",
        "dataset_dir": ".",
        "patients": "sub-*",
        "files": files,
        "unlike": {name: list(row.unlike) for name, row in rows.items() if row.unlike},
        "datalist": "",
        "table": "participants.tsv" if data.covariates else "",
        "output": "predictions.json",
        "modalities": list(data.modalities),
        "classes": list(config.task.classes),
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.eval()",
        "preprocessing": {"_target_": "Compose", "transforms": _transforms(data)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$preparation.find_patients(@dataset_dir, @patients, @files, @datalist, @unlike, @table)",
            "transform": "@preprocessing",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {
            "_target_": "scripts.patients.Evaluator",
            **{name: f"@{name}" for name in ("network", "dataset", "inferer", "device", "classes", "modalities", "output")},
        },
        "run": ["$@evaluator.run()"],
    }


def _transforms(data: DataConfig) -> list[dict[str, Any]]:
    """MONAI's own as far as they go, then ours."""
    keys: dict[str, Any] = {"keys": [*data.modalities, MASK], "allow_missing_keys": True}
    return [
        {"_target_": "LoadImaged", **keys, "reader": "NibabelReader", "image_only": True, "ensure_channel_first": True},
        {"_target_": "Orientationd", **keys, "axcodes": "RAS", "labels": None},
        {
            "_target_": "scripts.patients.SlicesOfPatientd",
            "keys": list(data.modalities),
            "slices": data.slices,
            "size": data.size,
            "field_of_view": data.field_of_view,
            "low": data.low_percentile,
            "high": data.high_percentile,
            "quantities": {name: list(astuple(rule)) for name, rule in _quantities(data)},
            "covariates": [asdict(row) for row in data.covariates],
        },
    ]


def _quantities(data: DataConfig) -> list[tuple[str, Quantity]]:
    """The modalities that have a fixed intensity window."""
    rules = [(name, MODALITIES[name].quantity) for name in data.modalities]
    return [(name, rule) for name, rule in rules if rule]


def metadata(config: RunConfig, about: dict[str, Any]) -> dict[str, Any]:
    """configs/metadata.json, after MONAI's specification."""
    return {
        "schema": SCHEMA,
        "version": about["version"],
        "changelog": {about["version"]: "first release"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("nibabel", "scipy", "fire")},
        "name": about["name"],
        "task": f"Glioma {config.task.label} from multi-modality brain MRI",
        "description": about["description"],
        "authors": "FedMRI; see the hospitals in docs/README.md",
        "copyright": f"Code: Apache-2.0. Weights: {about['weights_licence']}",
        "intended_use": about["intended_use"],
        "eval_metrics": about["eval_metrics"],
        "network_data_format": _data_format(config),
    }


def _data_format(config: RunConfig) -> dict[str, Any]:
    """What goes into the network and what comes out of it."""
    data = config.data
    images = {
        "type": "image",
        "format": "magnitude",
        "modality": "MR",
        "num_channels": data.slices,
        "spatial_shape": [len(data.modalities), data.size, data.size],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(s): f"axial slice {s + 1} of {data.slices}, from below" for s in range(data.slices)},
    }
    present = images | {
        "format": "labels",
        "num_channels": len(data.modalities),
        "spatial_shape": [],
        "dtype": "bool",
        "channel_def": {str(m): f"{name} is there" for m, name in enumerate(data.modalities)},
    }
    probabilities = images | {
        "type": "probabilities",
        "format": "classes",
        "num_channels": len(config.task.classes),
        "spatial_shape": [],
        "channel_def": {str(c): name for c, name in enumerate(config.task.classes)},
    }
    known = images | {
        "format": "values",
        "num_channels": len(data.covariates),
        "spatial_shape": [],
        "value_range": [],
        "channel_def": {str(q): _meaning(row) for q, row in enumerate(data.covariates)},
    }
    inputs = {"image": images, "present": present} | ({"covariates": known} if data.covariates else {})
    return {"inputs": inputs, "outputs": {"pred": probabilities}}


def _meaning(row: covariates.Covariate) -> str:
    """What the network takes of one covariate."""
    values = ", ".join(f"{i}: {value}" for i, value in enumerate(row.values))
    return f"{row.name}, {values or row.expected}; NaN where it is missing"


def alone(source: str) -> str:
    """`common.config.covariates` as a module that needs nothing of FedMRI.

    Args:
        source: of it.
    """
    return source.replace("from common.errors import ConfigError\n", "ConfigError = ValueError\n")


def pure_source(source: str) -> str:
    """What of a module speaks of nothing of FedMRI, as a module of its own.

    Args:
        source: of `common.data.volumes`.
    """
    tree, kept = ast.parse(source), []
    dropped: set[str] = set()
    for node in tree.body:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "common"
        if ours or names & (OURS | dropped):
            dropped |= {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        kept.append("\n".join(source.splitlines()[first - 1 : node.end_lineno]))
    return "\n\n".join(kept) + "\n"


def _json(table: dict[str, Any]) -> str:
    return json.dumps(table, indent=2) + "\n"


def _covariates(config: RunConfig) -> str:
    """How to tell the model what it takes besides images; "" where it takes nothing."""
    rows = config.data.covariates
    told = "; ".join(f"{row.name}, {row.expected}" for row in rows)
    return (
        f"\nThe model also takes {told}, each where it is known: from the columns of those names in\n"
        f'FOLDER/participants.tsv (`--table`), or in the JSON list, beside the files: "{rows[0].name}": ...\n'
        if rows
        else ""
    )


def readme(config: RunConfig) -> str:
    """How to run it."""
    names = ", ".join(config.data.modalities)
    return f"""# How to run this bundle

    pip install "monai>=1.5" torch nibabel scipy fire
    python -B -m monai.bundle run --config_file configs/inference.json --dataset_dir FOLDER --output predictions.json

FOLDER holds one folder a patient (`--patients "sub-*"`), or is one patient's. A patient has any of {names}, registered to each
other, and a tumour mask where there is one. Files are found by the globs in `files`; other names are set with
`--files#t1 "*t1.nii.gz"` and so on, or listed in a JSON file: `--datalist list.json`, [{{"id": "A", "t1": "a.nii.gz", ...}}].
A file that ends in .csv gives a table. `-B` keeps Python from writing into the signed folder; `fedmri-server verify` would call
what it wrote extra files.
{_covariates(config)}
The answer is calibrated probabilities. Prediction sets and the out-of-distribution flag are not in this bundle: `fedmri-site
predict` with model.safetensors gives them.

"""
