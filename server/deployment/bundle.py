"""The bundle (FAB) of this checkout: the code that runs at the hospitals, which they approve by its SHA-256."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from flwr.cli.build import build_fab_from_files

from common.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bundle:
    """A bundle as Flower ships it."""

    content: bytes

    @property
    def sha256(self) -> str:
        """What the hospitals approve."""
        return hashlib.sha256(self.content).hexdigest()


def build_bundle(checkout: Path = CHECKOUT) -> Bundle:
    """Build it as `flwr run` does: the same files give the same bytes, with the same zlib.

    Raises:
        ConfigError: the checkout is no Flower app, or the bundle would be too large.
    """
    try:
        return Bundle(build_fab_from_files(_files(checkout))[0])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{checkout}: no bundle can be built of it. {error}") from error


def _files(checkout: Path) -> dict[str, Path]:
    """Files by their names in the bundle, without links or hidden folders: none of those travels, and they hold most files."""
    files: dict[str, Path] = {}
    for path, folders, names in os.walk(checkout):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        found = [Path(path, name) for name in names]
        files |= {file.relative_to(checkout).as_posix(): file for file in found if not file.is_symlink()}
    return files
