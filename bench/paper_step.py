"""A step of MM-DINOv2's recipe written plainly, and a step of our default configuration for a ViT-S, side by side in turns.

    python bench/paper_step.py OUT.json [--size 98] [--patients 8] [--crops padded|apart] [--turns 3] [--config dinov2]

The plain side is `bench/paper_recipe.py`: all weights trained in fp32, a full teacher, nothing frozen, shared or kept, as many
views as ours has. `padded` puts local crops on a canvas of the global ones' size and lets nobody look at the rest; `apart` runs
them by themselves. Both sides see the same patients with one slice each. Weights are random and images noise: times are those of
any. Every turn of a side is a process of its own with one thread; its first step warms up and is not counted.
What is done is kept in OUT.json: an interrupted run goes on.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

MODALITIES, CLASSES = 4, 3
STEPS = 3  # of a turn, the first of which warms up


@dataclass(frozen=True)
class Job:
    """One turn of one side: `paper` or `ours`."""

    side: str
    size: int
    patients: int
    crops: str
    config: str


def main() -> None:
    """Measure what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--size", type=int, default=98, help="edge of a global crop in pixels (the paper's: 98)")
    parser.add_argument("--patients", type=int, default=8, help="of a batch")
    parser.add_argument("--crops", default="padded", choices=("padded", "apart"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--config", default="dinov2", help="ours")
    arguments = parser.parse_args()
    from kept import run_kept  # noqa: PLC0415  a child imports what its own side needs, and no more

    from common.messages.code_version import code_hash  # noqa: PLC0415

    job = Job("", arguments.size, arguments.patients, arguments.crops, arguments.config)
    known = {"code": code_hash(), **{name: value for name, value in asdict(job).items() if name != "side"}}
    jobs = {
        f"{turn} {side}": Job(**asdict(job) | {"side": side}) for turn in range(arguments.turns) for side in ("paper", "ours")
    }
    run_kept(Path(arguments.out), known, measure, jobs, 1, json.dumps, table)
    print(json.dumps(json.loads(Path(arguments.out).read_text(encoding="utf-8"))["table"], indent=2))


def measure(job: Job) -> dict[str, Any]:
    """One turn in a process of its own: `seconds` of a step, `peak` and `imports` in MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.side} ended with {done.returncode}: {done.stderr[-600:]}")
    return {"side": job.side, **json.loads(done.stdout.strip().rpartition("\n")[2])}


def table(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of both sides, and ours over the paper's."""
    found: dict[str, Any] = {}
    for side in ("paper", "ours"):
        own = [run for run in runs.values() if run["side"] == side]
        found[side] = {key: statistics.median([run[key] for run in own]) for key in ("seconds", "peak", "imports")} if own else {}
    if found["paper"] and found["ours"]:
        above = {side: found[side]["peak"] - found[side]["imports"] for side in ("paper", "ours")}
        found["ours over the paper's"] = {
            "seconds": round(found["ours"]["seconds"] / found["paper"]["seconds"], 3),
            "peak": round(found["ours"]["peak"] / found["paper"]["peak"], 3),
            "peak less imports": round(above["ours"] / above["paper"], 3),
        }
    return {"table": found}


def child(job: Job) -> None:
    """One turn of one side."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    run = {"paper": paper, "ours": ours}[job.side](job)
    imports, clock = peak(), [time.process_time()]
    run(lambda: clock.append(time.process_time()))
    steps = [after - before for before, after in pairwise(clock[1:])]
    print(json.dumps({"seconds": round(statistics.median(steps), 3), "peak": peak(), "imports": imports}))


def peak() -> int:
    """Most memory that the process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def ours(job: Job) -> Callable[[Callable[[], None]], object]:
    """A round of as many epochs as steps: the patients are one batch."""
    import numpy as np  # noqa: PLC0415

    from common.config.run import load_config  # noqa: PLC0415
    from common.data.dataset import SiteData  # noqa: PLC0415
    from common.models.arrays import get_arrays  # noqa: PLC0415
    from common.models.build import build_model  # noqa: PLC0415
    from common.training.local import train_round  # noqa: PLC0415

    n, size = job.patients, job.size
    settings = (f"data.size={size}", "data.slices=1", "slices_per_step=1", f"training.batch_size={n}", f"local_epochs={STEPS}")
    path = Path(__file__).resolve().parents[1] / "configs" / f"{job.config}.toml"
    config = load_config(path, ("weights=random", "precision=fp32", "head_rounds=0", *settings))
    images = np.random.default_rng(0).random((n, 1, MODALITIES, size, size), np.float32).astype(np.float16)
    labels, present = np.arange(n) % CLASSES, np.ones((n, MODALITIES), bool)
    site = SiteData("bench", tuple(map(str, range(n))), images, present, labels, "bench")

    def run(tick: Callable[[], None]) -> object:
        model = build_model(config)
        arrays = get_arrays(model)
        return train_round(model, arrays, site, config, round_number=1, site_seed=0, progress=lambda *_: tick())

    return run


def paper(job: Job) -> Callable[[Callable[[], None]], object]:
    """So many steps of `bench/paper_recipe.py`."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from paper_recipe import run  # noqa: PLC0415

    x = torch.from_numpy(np.random.default_rng(0).random((job.patients, MODALITIES, job.size, job.size), np.float32))
    return partial(run, x, torch.arange(job.patients) % CLASSES, STEPS, job.crops == "padded")


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):  # a child's job
        child(Job(**json.loads(sys.argv[1])))
    else:
        main()
