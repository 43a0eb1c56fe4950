"""How long `fedmri-site predict` takes, start of Python to its exit.

    python bench/predict.py bench/predict.json --cases CASES
    python bench/predict.py GPU.json --cases CASES --only ViT-S --repeats 3

One real 3D patient from NIfTI on a ViT-S of random weights at the default recipe (the size counts, not what it says), with
calibration and out-of-distribution score; and 100 patients, phantoms of the demo and the real one a hundred times by links, each
on the demo's model and on the ViT-S. Medians; beside them the processor's seconds, which other work on a machine changes less.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from common.cli import config_path
from common.config.run import RunConfig, config_from_table, load_config
from common.evaluation.calibration.calibration import CALIBRATION_NAME, Calibration, save_calibration
from common.evaluation.ood.features import ALONE
from common.evaluation.ood.modality_agreement import AGREEMENTS
from common.evaluation.ood.score import MIN_COUNT, moments
from common.files import write_atomic
from common.models.arrays import get_arrays, save_arrays
from common.models.backbones.create import empty_backbone
from common.models.build import build_model
from common.run_folder import MODEL_NAME
from simulation.phantom.hospitals import write_hospitals

MANY = 100
CASE = "BraTS2021_00006"


def make_run(run: Path, config: RunConfig) -> None:
    """An untrained model, and a calibration whose reference is noise: work for the processor, and no more."""
    model = build_model(config)
    said = {"backbone": model.backbone_name, "backbone_sha256": model.backbone_sha256, "config": config.to_json()}
    save_arrays(run / MODEL_NAME, get_arrays(model), {**said, "classes": json.dumps(list(config.task.classes))})
    modalities = len(config.data.modalities)
    noise = np.random.default_rng(0).normal(0, 1, (4 * MIN_COUNT, modalities, ALONE + modalities * AGREEMENTS))
    save_calibration(run / CALIBRATION_NAME, Calibration(1.5, ood_threshold=5.0), moments(noise))


def save_random_weights(path: Path) -> None:
    """A file as a hospital has it, of the default backbone."""
    config = RunConfig()
    vit = empty_backbone(config.model.backbone, config.data.size).module
    save_arrays(path, {name: tensor.numpy() for name, tensor in vit.state_dict().items()}, {})


def measure(*arguments: str | Path, repeats: int, answer: bool = False) -> dict[str, float]:
    """Medians of wall-clock and processor seconds from start to exit.

    Args:
        *arguments: of `fedmri-site predict`.
        repeats: processes that are timed, one after the other.
        answer: also until the answer stands on the screen; the evidence comes after it.
    """
    command = [sys.executable, "-m", "client.cli.main", "predict", *map(str, arguments)]
    walls, cores, answers = [], [], []
    for _ in range(repeats):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
            for line in process.stdout or ():
                if "Not a medical device" in line:
                    answers.append(time.perf_counter() - began)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cores.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}.")
    found = {"seconds": statistics.median(walls), "processor_seconds": statistics.median(cores)}
    if answer:
        found["seconds_to_answer"] = statistics.median(answers)
    return {name: round(value, 3) for name, value in found.items()}


def one(run: Path, patient: Path, repeats: int) -> dict[str, dict[str, float]]:
    """One patient: the answer alone, and with evidence."""
    return {
        level: measure(patient, "--model", run, "--evidence", level, repeats=repeats, answer=True)
        for level in ("none", "modalities", "all")
    }


def many(run: Path, folder: Path) -> dict[str, float]:
    """A folder of patients: seconds for each."""
    found = measure(folder, "--model", run, repeats=1)
    return {f"{name}_per_patient": round(value / MANY, 4) for name, value in found.items()}


def links(folder: Path, patient: Path) -> Path:
    """One patient under a hundred names."""
    folder.mkdir()
    for number in range(MANY):
        (folder / f"{patient.name}-{number:03d}").symlink_to(patient, target_is_directory=True)
    return folder


def main() -> None:
    """Measure all and write it after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=Path, help="folder of real patients, BraTS2021_00006 among them")
    parser.add_argument("--only", default="", metavar="TEXT", help="parts whose title holds this")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }
    with tempfile.TemporaryDirectory(prefix="fedmri-bench-") as name:
        for title, part in parts(Path(name), arguments.cases, arguments.repeats).items():
            if arguments.only in title:
                found[title] = part()
                write_atomic(arguments.out, (json.dumps(found, indent=2) + "\n").encode())
                print(title, json.dumps(found[title]), flush=True)


def parts(folder: Path, cases: Path | None, repeats: int) -> dict[str, Callable[[], object]]:
    """What there is to be measured, by its title."""
    demo, small, phantoms = folder / "demo", folder / "vit-s", folder / "phantoms" / "external"
    make_run(demo, load_config(config_path("demo")))
    weights = folder / "vit-s.safetensors"
    save_random_weights(weights)
    make_run(small, config_from_table({"model": {"weights": str(weights)}}))

    def many_phantoms(run: Path) -> dict[str, float]:
        if not phantoms.exists():
            write_hospitals(folder / "phantoms", sites=2, patients=1, external=MANY, seed=7)
        return many(run, phantoms)

    found: dict[str, Callable[[], object]] = {"100 phantoms, demo": lambda: many_phantoms(demo)}
    if cases is not None:
        real = links(folder / "real", (cases / CASE).resolve())
        found = {
            "1 real patient, ViT-S": lambda: one(small, cases / CASE, repeats),
            "1 real patient, demo": lambda: one(demo, cases / CASE, repeats),
            **found,
            "100 real patients, demo": lambda: many(demo, real),
            "100 real patients, ViT-S": lambda: many(small, real),
        }
    return found | {"100 phantoms, ViT-S": lambda: many_phantoms(small)}


if __name__ == "__main__":
    main()
