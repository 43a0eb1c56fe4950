"""A site folder in BIDS, one patient at a time: whole, or not there."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from client.data.sidecar import Sidecar
from client.data.volume import Volume, save_nifti
from common.config.modalities import MODALITIES
from common.data.bids import DESCRIPTIONS, describe_site, mask_path
from common.errors import DataError
from common.files import locked, remove_unfinished, sync_folder, write_atomic

PROGRAM = "fedmri-site import"
_UNFINISHED = ".importing-"
_LOCK = ".import.lock"


@dataclass(frozen=True)
class PatientImages:
    """What is written of one patient, all on one grid."""

    name: str  # sub-...
    volumes: Mapping[str, Volume | Path]  # modality -> what is written, or the file that is copied or linked
    sidecars: Mapping[str, Sidecar]  # modality -> its JSON file, where it gets one
    mask: Volume | None = None
    row: Mapping[str, str] = field(default_factory=dict)  # of participants.tsv


class SiteFolder:
    """The folder that an import fills."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def alone(self) -> IO[bytes]:
        """Hold the folder as the one import that fills it, wherever its home is, until what is returned is closed.

        Raises:
            DataError: another import fills it: it would remove what this one has not finished.
        """
        try:
            return locked(self.root / _LOCK, wait=False)
        except BlockingIOError as error:
            raise DataError(f"Another import fills {self.root}. Wait for its end, or name another --out.") from error

    def tidy(self) -> None:
        """Remove what imports that were killed left unfinished. Only for who holds the folder `alone`."""
        for left in self.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        for name in ("participants.tsv", *DESCRIPTIONS):
            remove_unfinished(self.root / name)

    def has(self, patient: str) -> bool:
        """Whether the patient is there already, whole."""
        return (self.root / patient).is_dir()

    def add(self, images: PatientImages, *, link: bool = False) -> None:
        """Write a patient beside, then move them in: first the table's row, then the mask, last the images, which count.

        Args:
            images: of the patient.
            link: to files, instead of copying them.
        """
        new = self._fresh(images.name)
        for modality, volume in images.volumes.items():
            row = MODALITIES[modality]
            stem = new / row.folders[0] / f"{images.name}_{row.suffix}"
            _put(volume, stem, link=link)
            if modality in images.sidecars:
                write_atomic(stem.with_name(f"{stem.name}.json"), _json(images.sidecars[modality]))
        if images.row:
            self._put_row(images.name, images.row)
        if images.mask:
            mask = mask_path(self.root, images.name)
            save_nifti(images.mask, mask, np.uint8)
            _on_disk(mask.parent)
        _on_disk(new)
        os.rename(new, self.root / images.name)
        sync_folder(self.root)

    def describe(self, about: str) -> None:
        """Write what BIDS wants beside the patients; what a person wrote there stays.

        Args:
            about: a sentence or two for the README.
        """
        columns = next(iter(_rows(self.root / "participants.tsv").values()), {})
        describe_site(self.root, self.root.resolve().name, PROGRAM, about, list(columns))

    def _fresh(self, patient: str) -> Path:
        """An empty folder for what is not finished; what an interrupted import left of this patient is removed."""
        folder = self.root / f"{_UNFINISHED}{patient}"
        for left in (folder, mask_path(self.root, patient).parents[1]):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _put_row(self, patient: str, row: Mapping[str, str]) -> None:
        path = self.root / "participants.tsv"
        rows = _rows(path)
        rows[patient] = {**rows.get(patient, {}), **row}
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        text = io.StringIO()
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerow(["participant_id", *columns])
        table.writerows([name, *(rows[name].get(column) or "n/a" for column in columns)] for name in sorted(rows))
        write_atomic(path, text.getvalue().encode())


def _put(volume: Volume | Path, stem: Path, *, link: bool) -> None:
    """A volume is written; a file comes as it is."""
    if isinstance(volume, Volume):
        save_nifti(volume, stem.with_name(f"{stem.name}.nii.gz"))
        return
    target = stem.with_name(f"{stem.name}{''.join(volume.suffixes[-2:]) if volume.name.endswith('.nii.gz') else volume.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(volume.resolve())
    else:
        shutil.copyfile(volume, target)


def _on_disk(folder: Path) -> None:
    """Wait until all files under a folder would survive a power cut: a patient who is there is there whole."""
    for path, _, names in os.walk(folder):
        for name in names:
            if not (file := Path(path) / name).is_symlink():
                with file.open("rb") as content:
                    os.fsync(content.fileno())
        sync_folder(Path(path))


def _rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row.pop("participant_id"): row for row in csv.DictReader(file, delimiter="\t")}


def _json(content: Mapping[str, object]) -> bytes:
    return f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode()
