"""What a classification loses where its slices go through proposed tumours and not through drawn ones.

    fedmri-sim cross-site --config real --data DATA --folds A B C --out CLASSES ...
    fedmri-sim cross-site --config segmentation --data DATA --folds A B C --out MASKS ...
    python bench/proposed_masks.py DATA CLASSES MASKS OUT.json --weights FILE

Each hospital's patients are asked about three times, as a user would (`fedmri-site predict --json`), by models that never saw the
hospital: with the drawn masks, with the masks that the segmentation model proposes, and with none. All folds' answers together
give the table; a fold that is done is kept in OUT.json as long as both its models are the same.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common.config.run import RunConfig, config_from_table
from common.data.cases import Case, read_site
from common.metrics.classification import evaluate, paired_difference
from common.run_folder import MODEL_NAME

FOLD = "external-"
WAYS = ("drawn", "proposed", "none")
RESAMPLES = 2000


def main() -> None:
    """Ask, keep, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("classes", type=Path, help="a cross-site run that classifies")
    parser.add_argument("masks", type=Path, help="a cross-site run of the same folds that segments")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", required=True)
    asked = parser.parse_args()
    kept: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    folds: dict[str, Any] = kept.setdefault("folds", {})
    runs = sorted(asked.classes.glob(f"{FOLD}*"))
    config = config_from_table(json.loads((runs[0] / "report.json").read_text())["provenance"]["config"])
    for run in runs:
        guide = asked.masks / run.name
        models = [hashlib.sha256((one / MODEL_NAME).read_bytes()).hexdigest() for one in (run, guide)]
        if folds.get(run.name, {}).get("models") != models:
            folds[run.name] = {"models": models, "patients": ask_fold(run, guide, asked.data, config, asked.weights)}
            asked.out.write_text(json.dumps(kept, indent=1) + "\n")
    kept |= measure([folds[run.name]["patients"] for run in runs], config)
    asked.out.write_text(json.dumps(kept, indent=1) + "\n")
    for way in WAYS:
        print(way, {key: kept[way][key] for key in ("n", "mcc", "auroc")}, kept[way].get("drawn minus this"))


def ask_fold(run: Path, guide: Path, data: Path, config: RunConfig, weights: str) -> dict[str, Any]:
    """The true class and the three answers of each labelled patient of the fold's hospitals who has a drawn mask."""
    found: dict[str, Any] = {}
    for name in run.name.removeprefix(FOLD).split("+"):
        cases = [case for case in read_site(data / name, config, simulated=True).cases if case.label >= 0 and case.mask]
        with tempfile.TemporaryDirectory() as folder:
            bare = without_masks(data / name, cases, Path(folder) / name)
            answers = {
                "drawn": answers_of(data / name, run, weights),
                "proposed": answers_of(bare, run, weights, "--mask-model", str(guide)),
                "none": answers_of(bare, run, weights),
            }
        for case in cases:
            found[case.id] = {"label": case.label} | {way: answers[way].get(case.id) for way in WAYS}
    return found


def without_masks(site: Path, cases: list[Case], out: Path) -> Path:
    """The site's folder again, its files by links, but no mask."""
    masks = {case.mask.resolve() for case in cases if case.mask}
    for file in sorted(site.rglob("*")):
        if file.is_file() and file.resolve() not in masks:
            link = out / file.relative_to(site)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return out


def answers_of(site: Path, model: Path, weights: str, *options: str) -> dict[str, Any]:
    """By patient: probabilities, what the slices went through, and the volume of the proposal in ml, where there is one."""
    command = [sys.executable, "-m", "client.cli.main", "predict", str(site), "--model", str(model), "--weights", weights]
    told = subprocess.run([*command, *options, "--json"], capture_output=True, text=True, check=False)
    try:
        tables = json.loads(told.stdout)
    except ValueError:
        raise SystemExit(told.stderr) from None
    return {
        one["patient"]: {
            "probabilities": list(one["probabilities"].values()),
            "through": one["slices"]["through"],
            "ml": (one.get("proposed_mask") or {}).get("ml"),
        }
        for one in tables
        if "error" not in one
    }


def measure(folds: list[dict[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Of the patients who have all three answers."""
    rows = [one for fold in folds for one in fold.values() if all(one[way] for way in WAYS)]
    labels = np.array([one["label"] for one in rows])
    said = {way: np.array([one[way]["probabilities"] for one in rows]) for way in WAYS}
    found: dict[str, Any] = {
        way: evaluate(labels, said[way], config.task.classes, bootstrap=RESAMPLES, generator=np.random.default_rng(0))
        for way in WAYS
    }
    for way in WAYS[1:]:
        found[way]["drawn minus this"] = paired_difference(
            labels, said["drawn"], said[way], bootstrap=RESAMPLES, generator=np.random.default_rng(0)
        )
    found["guided"] = sum(one["proposed"]["through"] == "proposed tumour" for one in rows)
    return found


if __name__ == "__main__":
    main()
