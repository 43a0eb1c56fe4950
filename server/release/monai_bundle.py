"""The MONAI bundle: a folder that `python -m monai.bundle run` works with, without FedMRI.

configs/inference.json, configs/metadata.json   what runs, and what it is
models/model.ts                                 the dense model as TorchScript
scripts/                                        our own reading, judging and cutting of files, the modules that training uses
docs/README.md, LICENSE
"""

import ast
import json
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import server.release.monai_patients as patients
from common.config import covariates
from common.config.axes import AXES, fields_of_view, squares
from common.config.modalities import MASK, MASKS, MODALITIES
from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.files import write_atomic
from common.model_files.dense import DenseModel
from server.release.graphs import write_torchscript

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
OURS = re.compile(r"^(\s*from )common\b", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[2]


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
        **{f"scripts/{name}": text for name, text in scripts().items()},
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
    files = {name: list(row.globs("anywhere")) for name, row in rows.items()} | {MASK: list(MASKS)}
    return {
        "imports": ["$import torch", "$from pathlib import Path", "$import scripts.patients as preparation"],
        "bundle_root": "$Path(preparation.__file__).resolve().parents[1].as_posix()",
        "dataset_dir": ".",
        "patients": "sub-*",
        "files": files,
        "datalist": "",
        "place": "header",
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
            "data": "$preparation.find_patients(@dataset_dir, @patients, @files, @datalist, @table)",
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
    """Ours alone: no stock transform says what is wrong with a file, and one that reads it otherwise would answer otherwise."""
    return [
        {
            "_target_": "scripts.patients.SlicesOfPatientd",
            "keys": list(data.modalities),
            "axes": list(data.axes),
            "slices": data.slices,
            "size": data.size,
            "field_of_view": list(fields) if len(fields := fields_of_view(data)) > 1 else fields[0],
            "low": data.low_percentile,
            "high": data.high_percentile,
            "covariates": [asdict(row) for row in data.covariates],
            "standard": [asdict(row) for row in data.standard],
            "intensity": data.intensity,
            "through": data.through,
            "shift": data.shift,
            "place": "@place",
        },
    ]


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
        "num_channels": len(squares(data)),
        "spatial_shape": [len(data.modalities), data.size, data.size],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": _images(data),
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


def _images(data: DataConfig) -> dict[str, str]:
    """What each image of a patient shows, by its place."""
    several = len(fields_of_view(data)) > 1
    return {
        str(place): f"{axis} slice {number + 1} of {data.slices}, from {AXES[axis].first}"
        + (f", {field:g} mm" if several else "")
        for place, (axis, field, number) in enumerate(squares(data))
    }


def _meaning(row: covariates.Covariate) -> str:
    """What the network takes of one covariate."""
    values = ", ".join(f"{i}: {value}" for i, value in enumerate(row.values))
    return f"{row.name}, {values or row.expected}; NaN where it is missing"


def scripts() -> dict[str, str]:
    """The bundle's own modules: `patients.py`, and every module of `common` that it needs, as they are but for their imports.

    Returns:
        {name within `scripts`: source}.
    """
    found = {"patients.py": Path(patients.__file__).read_text(encoding="utf-8")}
    left = list(_needed(found["patients.py"]))
    while left:
        name = left.pop()
        if name not in found:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
            left += _needed(found[name])
    packages = {f"{folder}/__init__.py" for name in found for folder in Path(name).parents if folder != Path()}
    copied = '"""Copied from FedMRI (Apache-2.0)."""\n'
    sources = {name: OURS.sub(r"\1scripts.common", text) for name, text in sorted(found.items())}
    return {"__init__.py": copied, **dict.fromkeys(sorted(packages), copied), **sources}


def _needed(source: str) -> set[str]:
    """Files of `common` that a module's source imports from, packages' own left out."""
    needed = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "common":
            place = (node.module or "").replace(".", "/")
            inner = [f"{place}/{alias.name}.py" for alias in node.names]
            needed |= {f"{place}.py"} if (ROOT / f"{place}.py").is_file() else set(inner)
    return needed


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

    pip install "monai>=1.5" torch nibabel scipy fire      # Python 3.11 or newer
    python -B -m monai.bundle run --config_file configs/inference.json --dataset_dir FOLDER --output predictions.json

FOLDER holds one folder a patient (`--patients "sub-*"`), or is one patient's. A patient has any of {names}, registered to each
other, and a tumour mask where there is one. Files are found by the globs in `files`; other names are set with
`--files#t1 "*t1.nii.gz"` and so on, or listed in a JSON file: `--datalist list.json`, [{{"id": "A", "t1": "a.nii.gz", ...}}].
A patient whose files cannot be used is named with the reason (`error`), and the others get their answers; `findings` says what
was found of those who do. Masks and images that belong voxel to voxel though their headers disagree: `--place voxels`.
A file that ends in .csv gives a table. `-B` keeps Python from writing into the signed folder; `fedmri-server verify` would call
what it wrote extra files.
{_covariates(config)}
The answer is calibrated probabilities. Prediction sets and the out-of-distribution flag are not in this bundle: `fedmri-site
predict` with model.safetensors gives them.

"""
