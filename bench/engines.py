"""Engines of `fedmri-sim run` side by side: what a round and a whole run cost with a step that costs next to nothing.

    python bench/engines.py OUT.json [SITES [ROUNDS]]

Head rounds of one step, so that from the second round on the time is that of messages, processes and aggregation. Wall time: Ray
detaches its processes, so that their processor seconds cannot be told.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common.files import write_atomic
from server.run.round_lines import read_rounds
from simulation.engines import ENGINES, run_federation
from simulation.phantom.hospitals import write_hospitals

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIG = """
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
head_hidden = 0
joint_blocks = 2
[training]
head_rounds = {rounds}
head_steps = 1
[federation]
rounds = {rounds}
[evaluation]
bootstrap = 0
every = 0
holdout = 0.0
modality_subsets = false
"""


def measure(engine: str, folder: Path, sites: int) -> tuple[dict[str, float], bytes]:
    """Seconds of a round after the first (median), of the first, and of the whole run; and the model's bytes."""
    out = folder / engine
    settings = {
        "config": str(folder / "run.toml"),
        "data": str(folder / "data"),
        "external": "external",
        "cache": str(folder / "cache"),
    }
    began = time.perf_counter()
    run_federation(engine, CHECKOUT, settings, sites, out)
    whole = time.perf_counter() - began
    first, *later = [line["seconds"] for line in read_rounds(out)]
    found = {"round": statistics.median(later), "first_round": first, "run": whole}
    return {name: round(value, 3) for name, value in found.items()}, (out / "model.safetensors").read_bytes()


def main(out: Path, sites: int = 8, rounds: int = 6) -> None:
    """Measure all and write them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.toml").write_text(CONFIG.format(rounds=rounds))
        write_hospitals(folder / "data", sites=sites, patients=2, external=2, seed=1)
        warm, _ = measure(ENGINES[0], folder, sites)  # fills the cache
        (folder / ENGINES[0]).rename(folder / "first")
        found = {engine: measure(engine, folder, sites) for engine in ENGINES}
    assert len({model for _, model in found.values()}) == 1, "the engines give different bytes"
    seconds = {engine: figures for engine, (figures, _) in found.items()}
    ratios = {name: round(seconds["pool"][name] / seconds["ray"][name], 3) for name in warm}
    table = {"sites": sites, "rounds": rounds, "seconds": seconds, "pool / ray": ratios}
    write_atomic(out, (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
