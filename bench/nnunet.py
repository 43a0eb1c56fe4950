"""nnU-Net v2 (Isensee et al., Nature Methods 18:203, 2021) on the patients of a run that segments, one hospital left out.

    python -m venv NNUNET && NNUNET/bin/pip install -c constraints.txt nnunetv2      # an environment of its own
    python bench/nnunet.py NNUNET/bin DATA EXTERNAL [--epochs 1] [--memory GIGABYTES] [KEY=VALUE ...]

nnU-Net is no dependency of FedMRI. The other hospitals' patients who have a drawn mask become an nnU-Net data set in a temporary
folder; its own commands plan, train the `2d` configuration on a processor, and predict the external hospital's patients; each is
measured as a run of ours measures its own (`common.metrics.segmentation.agreement`). What it sees is not what the peers of
`simulation/peers` see: whole volumes in place of windows; steps, rates, augmentation and loss are its own. So it says what the
method reaches, and not what a network is worth.

nnunetv2 2.7.0 installs beside `constraints.txt` and replaces nothing: torch, numpy, MONAI and timm stay. It brings 28 packages,
some old (`argparse`, `unittest2`), which is why it stays outside. Its checkpoints are unpickled, by its own commands alone.

An epoch of nnU-Net is 250 steps and 50 batches of validation whatever the data, and it is made for 1000 epochs. On six phantoms
of 96 x 116 x 32 voxels it plans batches of 7 slices of 112 x 96 (never more than 5% of all) and 7.8 M values; three steps took
1.0 s of a processor each, a batch of validation 0.3 s: an epoch is four and a half minutes, the whole training three days. More
patients make larger batches, up to what is planned for: a graphics card of 8 GB, or `--memory`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.config.run import RunConfig, load_config
from common.data.cases import Case, read_site
from common.data.gate.finding import StaysOutError
from common.data.gate.patient import Patient, read_patient
from common.metrics.segmentation import agreement
from common.tasks.segmentation import Segmentation

DATASET = "Dataset001_FedMRI"
TRAINERS = {1: "nnUNetTrainer_1epoch", 5: "nnUNetTrainer_5epochs", 10: "nnUNetTrainer_10epochs", 20: "nnUNetTrainer_20epochs"}


def drawn(folder: Path, config: RunConfig) -> Iterator[tuple[Case, Patient]]:
    """A hospital's patients who have a drawn mask, one after the other."""
    for case in read_site(folder, config, simulated=True).cases:
        try:
            read = read_patient(case, config.data)
        except StaysOutError as out:
            print(out, file=sys.stderr)
            continue
        if read.tumour:
            yield case, read


def write_images(folder: Path, name: str, read: Patient, config: RunConfig) -> None:
    """One file for each modality of the run, on the patient's own grid; an absent one is a channel of zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for channel, modality in enumerate(config.data.modalities):
        volume = read.volumes.get(modality)
        voxels = np.zeros(read.reference.voxels.shape, np.float32) if volume is None else volume.voxels
        nib.save(nib.Nifti1Image(voxels, read.reference.affine), folder / f"{name}_{channel:04d}.nii.gz")


def write_dataset(raw: Path, data: Path, external: str, config: RunConfig) -> dict[str, tuple[Case, Patient]]:
    """The data set, and the external patients by the name that they have in it."""
    folder, count, asked = raw / DATASET, 0, dict[str, tuple[Case, Patient]]()
    (folder / "labelsTr").mkdir(parents=True)
    for site in sorted(one for one in data.iterdir() if one.is_dir()):
        for case, read in drawn(site, config):
            if site.name == external:
                name = f"external_{len(asked):04d}"
                asked[name] = (case, read)
                write_images(folder / "imagesTs", name, read, config)
                continue
            name = f"case_{count:04d}"
            count += 1
            write_images(folder / "imagesTr", name, read, config)
            label = nib.Nifti1Image(read.region.astype(np.uint8), read.reference.affine)
            nib.save(label, folder / "labelsTr" / f"{name}.nii.gz")
    described = {
        "channel_names": {str(n): modality for n, modality in enumerate(config.data.modalities)},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return asked


def commands(bin_: Path, folder: Path, epochs: int, memory: float) -> list[list[str]]:
    """What is run: plan, train on all patients, predict."""
    plans = [] if not memory else ["-gpu_memory_target", str(memory), "-overwrite_plans_name", "nnUNetPlans"]
    trainer = ["-tr", TRAINERS[epochs], "-device", "cpu"]
    places = ["-i", str(folder / "raw" / DATASET / "imagesTs"), "-o", str(folder / "said")]
    return [
        [str(bin_ / "nnUNetv2_plan_and_preprocess"), "-d", "1", "-c", "2d", "-np", "1", "-npfp", "1", *plans],
        [str(bin_ / "nnUNetv2_train"), "1", "2d", "all", *trainer],
        [
            str(bin_ / "nnUNetv2_predict"),
            *places,
            "-d",
            "1",
            "-c",
            "2d",
            "-f",
            "all",
            *trainer,
            "-npp",
            "1",
            "-nps",
            "1",
            "--disable_tta",
        ],
    ]


def run(bin_: Path, folder: Path, epochs: int, memory: float) -> dict[str, float]:
    """Run all; seconds by command."""
    names = ("raw", "preprocessed", "results")
    settings = {f"nnUNet_{name}": str(folder / name) for name in names} | {"OMP_NUM_THREADS": "1"}
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    took = {}
    for words in commands(bin_, folder, epochs, memory):
        began = time.monotonic()
        # 0: in the process that trains; the planner takes the number for threads, and needs one.
        augmenting = "1" if "plan" in Path(words[0]).name else "0"
        environment = os.environ | settings | {"nnUNet_n_proc_DA": augmenting}
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        took[Path(words[0]).name] = round(time.monotonic() - began, 1)
    return took


def measured(said: Path, asked: dict[str, tuple[Case, Patient]]) -> dict[str, Any]:
    """By patient, the agreement of nnU-Net's mask with the drawn one."""
    found = {}
    for name, (case, read) in asked.items():
        mask = np.asarray(nib.load(said / f"{name}.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
        found[case.id] = agreement(mask, read.region, read.reference.spacing).as_json()
    return found


def main() -> None:
    """Write, train, predict, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin", type=Path, help="folder of nnU-Net's commands")
    parser.add_argument("data", type=Path)
    parser.add_argument("external")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--epochs", type=int, choices=TRAINERS, default=1)
    parser.add_argument("--memory", type=float, default=0.0, help="that batch and network are planned for, in GB; 0: nnU-Net's 8")
    asked = parser.parse_args()
    config = load_config(Path(__file__).parents[1] / "configs" / "segmentation.toml", tuple(asked.settings))
    assert isinstance(config.task, Segmentation)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        patients = write_dataset(folder / "raw", asked.data, asked.external, config)
        took = run(asked.bin, folder, asked.epochs, asked.memory)
        [plans] = (folder / "preprocessed" / DATASET).glob("*lans.json")
        form = json.loads(plans.read_text())["configurations"]["2d"]
        found = measured(folder / "said", patients)
    dice = [one["dice"] for one in found.values()]
    print(json.dumps({"seconds": took, "batch": form["batch_size"], "patch": form["patch_size"], "patients": found}, indent=1))
    print(f"{asked.epochs} epochs, {len(dice)} patients, mean Dice {np.mean(dice):.3f}")


if __name__ == "__main__":
    main()
