"""Memory of one round at a site of many patients, in processes of their own.

    python bench/site_memory.py OUT.json [PATIENTS ...]

Noise for images, 224 pixels, five slices of four modalities (2 MB a patient), memory-mapped as the slice cache is; a small
model. Peaks over what the process had before it opened the site, looked at twenty times a second: `anonymous` is memory of the
process itself; `mapped` are pages of files, which the system takes back when it needs them. `open` opens the site and sets
patients aside; `tuning` also trains a tuning round.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.data.holdout import split
from common.files import write_atomic
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.training.local import train_round

SHAPE = (5, 4, 224, 224)
ROUNDS = {"open": 0, "tuning": 2}
CONFIG = {
    "data": {"size": 224},
    "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2},
    "objective": {"local_crops": 0, "modality_dropout": 0.0},
    "training": {"head_rounds": 1, "head_steps": 1, "batch_size": 8},
    "federation": {"rounds": 2},
    "evaluation": {"holdout": 0.2, "batch_size": 8},
}


def status() -> dict[str, float]:
    """MiB of this process now."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("mapped", "RssFile"))}


def child(file: Path, kind: str) -> None:
    """One process: prints its peaks over what it had before."""
    torch.set_num_threads(1)
    config = config_from_table(CONFIG)
    model = build_model(config)
    warm = open_site(file, 8)
    if ROUNDS[kind]:  # what any round needs, of however few patients
        train_round(model, get_arrays(model), warm, config, round_number=ROUNDS[kind], site_seed=1)
    before = peaks = status()
    ended = threading.Event()

    def look() -> None:
        nonlocal peaks
        while not ended.wait(0.05):
            peaks = {name: max(value, peaks[name]) for name, value in status().items()}

    watcher = threading.Thread(target=look)
    watcher.start()
    training, _ = split(open_site(file), config.evaluation.holdout)
    if ROUNDS[kind]:
        train_round(model, get_arrays(model), training, config, round_number=ROUNDS[kind], site_seed=1)
    time.sleep(0.2)
    ended.set()
    watcher.join()
    print(json.dumps({name: round(value - before[name], 1) for name, value in peaks.items()}))


def open_site(file: Path, patients: int | None = None) -> SiteData:
    """The site, or its first patients."""
    images = np.load(file, mmap_mode="r")[:patients]
    count = len(images)
    labels = np.arange(count) % 4 - 1  # one in four has none
    return SiteData("site", tuple(f"sub-{n}" for n in range(count)), images, np.ones((count, SHAPE[1]), np.bool_), labels, "key")


def main(out: Path, *patients: int) -> None:
    """Measure all and write them."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for count in patients or (50, 400):
        with TemporaryDirectory() as name:
            file, generator = Path(name) / "images.npy", np.random.default_rng(1)
            images = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(count, *SHAPE))
            for row in range(count):
                images[row] = generator.random(SHAPE, np.float32)
            images.flush()
            command = [sys.executable, __file__, "--child", str(file)]
            found[str(count)] = {kind: json.loads(subprocess.check_output([*command, kind])) for kind in ROUNDS}
        print(count, json.dumps(found[str(count)]), flush=True)
    write_atomic(out, (json.dumps({"MiB": found}, indent=2) + "\n").encode())


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(Path(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
