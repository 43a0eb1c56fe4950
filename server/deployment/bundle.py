"""The bundle (FAB) of this checkout: the code that runs at the hospitals, which they approve by its SHA-256."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

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
        return Bundle(build_fab_from_disk(checkout))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{checkout}: no bundle can be built of it. {error}") from error
