"""Our slice cache beside MONAI's PersistentDataset: from NIfTI files to batches of slices, cold and warm.

    python bench/monai_cache.py OUT.json [--patients 24] [--data FOLDER] [--turns 5]

Phantoms with all four modalities, or those patients of one data folder. MONAI's side is its own transforms as they come
nearest to what our slices are: RAS, 1 mm, intensities by the same percentiles, five slices through the brain's middle half, a
square of 112 mm, 224 pixels, float16. The pixels are not the same (MONAI's orientation and spacing resample, ours cuts the plane
from the volume). Cold: the cache is empty, the files are in the system's memory. Warm: a new pass over all patients as a program
makes it that starts: the dataset is built or the site is opened anew, then all batches of eight, float32, are read once in random
order. `again` is a further pass without opening. Turns alternate; one thread, no workers; wall and processor seconds, medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import PersistentDataset
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CenterSpatialCropd, SpatialPadd
from monai.transforms.intensity.dictionary import ScaleIntensityRangePercentilesd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.spatial.dictionary import Orientationd, Resized, Spacingd
from monai.transforms.utility.dictionary import CastToTyped, ConcatItemsd, DeleteItemsd, EnsureTyped, Lambdad

from common.config.modalities import DEFAULT_MODALITIES
from common.config.run import RunConfig
from common.data.cache import open_site
from common.data.cases import Site, read_site
from common.files import write_atomic
from simulation.phantom.hospitals import write_hospitals

BATCH, NAMES = 8, list(DEFAULT_MODALITIES)
CONFIG = RunConfig()
Seconds = dict[str, float]
Batches = Callable[[], Iterator[torch.Tensor]]
Side = Callable[[Site, Path], Batches]


def five_slices(volume: torch.Tensor) -> torch.Tensor:
    """[1, X, Y, Z] to five slices of its middle half, [1, X, Y, 5]."""
    depth = volume.shape[-1]
    return volume[..., np.linspace(depth // 4, 3 * depth // 4, CONFIG.data.slices).astype(int)]


def transforms() -> Compose:
    """MONAI's preprocessing: the result [M, X, Y, S] float16 is what its cache keeps."""
    data, field = CONFIG.data, round(CONFIG.data.field_of_view) if isinstance(CONFIG.data.field_of_view, float) else 112
    return Compose(
        [
            LoadImaged(NAMES, ensure_channel_first=True),
            Orientationd(NAMES, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd(NAMES, pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
            ScaleIntensityRangePercentilesd(NAMES, data.low_percentile, data.high_percentile, 0.0, 1.0, clip=True),
            CenterSpatialCropd(NAMES, (field, field, -1)),
            SpatialPadd(NAMES, (field, field, -1)),
            Lambdad(NAMES, five_slices),
            Resized(NAMES, (data.size, data.size, data.slices), mode="trilinear"),
            ConcatItemsd(NAMES, "x"),
            DeleteItemsd(NAMES),
            EnsureTyped("x", track_meta=False),
            CastToTyped("x", torch.float16),
        ]
    )


def monai(site: Site, cache: Path) -> Batches:
    """Batches of MONAI's dataset, which is built here."""
    files = [{name: str(case.files[name]) for name in NAMES} for case in site.cases]
    dataset = PersistentDataset(files, transforms(), cache_dir=cache)

    def batches() -> Iterator[torch.Tensor]:
        for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0):
            yield batch["x"].permute(0, 4, 1, 2, 3).float()

    return batches


def ours(site: Site, cache: Path) -> Batches:
    """Batches of our site, which is opened here."""
    again = read_site(site.root, CONFIG).only(case.id for case in site.cases)
    patients = open_site(again, CONFIG.data, cache, workers=1)

    def batches() -> Iterator[torch.Tensor]:
        for rows in torch.split(torch.randperm(len(patients)), BATCH):
            yield patients.take(np.asarray(rows)).x

    return batches


SIDES: dict[str, Side] = {"monai": monai, "ours": ours}


def taken(work: Callable[[], object]) -> Seconds:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def read(batches: Batches, patients: int) -> None:
    """One epoch; every patient came, in slices of one shape."""
    data = CONFIG.data
    shapes = [tuple(batch.shape) for batch in batches()]
    assert sum(shape[0] for shape in shapes) == patients
    assert {shape[1:] for shape in shapes} == {(data.slices, len(NAMES), data.size, data.size)}, shapes


def epochs(side: Side, site: Site, cache: Path, *, empty: bool) -> dict[str, Seconds]:
    """One turn of one side: where the cache is empty a cold epoch, then a warm one, and another without opening."""
    opened = list[Batches]()

    def epoch() -> None:
        opened.append(side(site, cache))
        read(opened[-1], len(site.cases))

    found = {"cold": taken(epoch)} if empty else {}
    return found | {"warm": taken(epoch), "again": taken(lambda: read(opened[-1], len(site.cases)))}


def measure(site: Site, folder: Path, turns: int) -> dict[str, dict[str, Seconds]]:
    """Medians by side and kind of epoch; a first turn, in which the process imports, is thrown away."""
    found: dict[str, dict[str, list[Seconds]]] = {side: {"cold": [], "warm": [], "again": []} for side in SIDES}
    for turn in range(turns + 1):
        for name, side in SIDES.items():
            times = epochs(side, site, folder / name / ("first" if not turn else "cache"), empty=turn < 2)
            for kind, seconds in times.items() if turn else ():
                found[name][kind].append(seconds)
    return {side: {kind: middle(times) for kind, times in kinds.items()} for side, kinds in found.items()}


def middle(times: list[Seconds]) -> Seconds:
    """The median by either clock."""
    return {clock: round(statistics.median(one[clock] for one in times), 4) for clock in ("wall", "processor")}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--data", type=Path, help="a data folder in place of phantoms")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["FEDMRI_CACHE"] = "/nonexistent"  # nothing of the machine's own
    with TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.data is None:
            count = arguments.patients
            write_hospitals(folder / "phantoms", sites=2, patients=count, external=0, seed=3)
        site = read_site(arguments.data or folder / "phantoms" / "hospital-a", CONFIG)
        site = site.only({case.id for case in site.cases if set(NAMES) <= case.files.keys()})
        seconds = measure(site, folder, arguments.turns)
    ratios = {
        f"{kind}, {clock}: MONAI's over ours": round(seconds["monai"][kind][clock] / seconds["ours"][kind][clock], 2)
        for kind in ("cold", "warm", "again")
        for clock in ("wall", "processor")
    }
    table = {"patients": len(site.cases), "turns": arguments.turns, "seconds": seconds, "ratios": ratios, "aim": "warm: 3"}
    write_atomic(arguments.out, (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
