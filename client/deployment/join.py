"""`fedmri-site join`: from a coordinator's invitation to a site's folder, with the code that is to be read and approved."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.deployment.provision import Provisioned, provision
from client.gate.approvals import Comparison, compare, unpack
from common.cli import CONFIGS
from common.deployment.invitation import Invitation, read_invitation
from common.deployment.minisign import PUBLIC
from common.errors import ConfigError
from common.files import write_atomic
from common.models.backbones.kept_weights import kept_file

FOLDER, TEXT = "invitation", "bundle"  # in the site's folder: what came, and the bundle's files to be read


@dataclass(frozen=True)
class Joined:
    """What `join` has made.

    Attributes:
        made: folder, key and settings.
        invitation: what was trusted.
        fingerprint: of the invitation, to be compared by telephone.
        text: folder of the bundle's files, to be read; nothing of it runs.
        files: the bundle beside the FedMRI that is installed here.
        weights_here: whether the planned run's frozen weights are at the site.
    """

    made: Provisioned
    invitation: Invitation
    fingerprint: str
    text: Path
    files: Comparison
    weights_here: bool


def join(file: Path, folder: Path | None, *, data: Path | None, told: str = "") -> Joined:
    """Make a site's folder from an invitation; what is wrong with that is said before anything is written.

    Args:
        file: the invitation.
        folder: the site's; None: one of the hospital's name, where the command is given.
        data: folder of the patients; None: beside site.toml.
        told: fingerprint as the coordinator read it out; "": it is compared afterwards.

    Raises:
        ConfigError: the invitation was cut or changed, has another fingerprint, or `provision` refuses.
    """
    invitation, fingerprint = read_invitation(file, told)
    with _looked_through(invitation) as ca:
        made = provision(folder or Path(invitation.site), invitation.address, ca, name=invitation.site, data=data)
    home = made.home.folder
    text = home / FOLDER / TEXT
    shutil.copyfile(file, _made(home / FOLDER) / "invitation.txt")
    write_atomic(offered(home) / f"{invitation.bundle_sha256}.fab", invitation.bundle)
    unpack(invitation.bundle, text)
    if invitation.release_key:
        write_atomic(home / PUBLIC, f"untrusted comment: of {invitation.federation}\n{invitation.release_key}\n".encode())
    files = compare(invitation.bundle, CONFIGS.parent)
    return Joined(made, invitation, fingerprint, text, files, _has_weights(made, invitation))


def offered(home: Path) -> Path:
    """Folder of the bundle that came with an invitation, as HASH.fab."""
    return home / FOLDER


@contextmanager
def _looked_through(invitation: Invitation) -> Iterator[Path]:
    """The invitation's ca.crt as a file; its bundle can be unpacked.

    Raises:
        ConfigError: what is said of it names the invitation, not a file that nobody knows.
        PolicyError: the bundle is no usable archive.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(invitation.bundle, Path(folder) / TEXT)
        file = Path(folder) / "ca.crt"
        file.write_text(invitation.ca, encoding="utf-8")
        try:
            yield file
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), "The invitation's ca.crt")) from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _has_weights(made: Provisioned, invitation: Invitation) -> bool:
    return kept_file(made.home.weights, invitation.backbone.sha256) is not None
