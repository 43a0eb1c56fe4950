"""Engines of `fedmri-sim run` side by side: what a round and a whole run cost with a step that costs next to nothing.

    python bench/engines.py OUT.json [SITES [ROUNDS]]
    python bench/engines.py OUT.json --memory SITES SITES ...

Head rounds of one step, so that from the second round on the time is that of messages, processes and aggregation. Wall time: Ray
detaches its processes, so that their processor seconds cannot be told. `--memory`: the peak of all processes of a run in the pool
together, for so many sites of one patient each, two rounds: what is in no file, with what forked processes share counted once,
looked at twice a second. Pages of files would go up and down with other programs of the same libraries. The sites' folders are
links to ten, whom the run is told to keep as they are.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
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


MEMORY_ROUNDS, LINKED = 2, 10
KEPT = '[twins]\nbetween_sites = "keep"\nwith_external = "keep"\n'


def memory(out: Path, *numbers: int) -> None:
    """Peaks by number of sites, and each over that of the first number."""
    found: dict[str, dict[str, float]] = {}
    for number in numbers:
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "run.toml").write_text(CONFIG.format(rounds=MEMORY_ROUNDS) + KEPT)
            write_hospitals(folder / "ten", sites=LINKED, patients=1, external=2, seed=1)
            ten = sorted((folder / "ten").glob("hospital-*"))
            (folder / "data").mkdir()
            (folder / "data" / "external").symlink_to(folder / "ten" / "external", target_is_directory=True)
            for i in range(number):
                (folder / "data" / f"site-{i:04d}").symlink_to(ten[i % LINKED], target_is_directory=True)
            found[str(number)] = peak(folder, number)
        first = found[str(numbers[0])]
        ratios = {sites: {what: round(peaks[what] / first[what], 3) for what in first} for sites, peaks in found.items()}
        table = {"rounds": MEMORY_ROUNDS, "MiB": found, "over the first": ratios}
        write_atomic(out, (json.dumps(table, indent=2) + "\n").encode())
        print(number, json.dumps(found[str(number)]), flush=True)


def peak(folder: Path, sites: int) -> dict[str, float]:
    """MiB of a run in the pool: of all its processes together, and of the largest of them."""
    highest, ended = {"all": 0.0, "largest": 0.0}, threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            sizes = list(descendants_mib(os.getpid()))
            highest["all"], highest["largest"] = max(highest["all"], sum(sizes)), max([highest["largest"], *sizes])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        figures, _ = measure("pool", folder, sites)
    finally:
        ended.set()
        watcher.join()
    return {name: round(value, 1) for name, value in highest.items()} | {"seconds": figures["round"]}


def descendants_mib(process: int) -> Iterator[float]:
    """Anonymous memory of each process that a process has started, itself left out; a shared page counts by its share."""
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended in the meantime
            for child in map(int, task.read_text().split()):
                lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
                yield sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024
                yield from descendants_mib(child)


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
    if "--memory" in sys.argv:
        memory(Path(sys.argv[1]), *map(int, sys.argv[3:]))
    else:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
