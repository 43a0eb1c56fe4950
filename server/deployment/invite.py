"""`fedmri-server invite`: the one file that a hospital needs to join."""

from importlib.metadata import version
from pathlib import Path

from common.cli import config_path
from common.config.run import load_config
from common.deployment.invitation import Backbone, Invitation, read_invitation, write_invitation
from common.deployment.minisign import PUBLIC, read_public
from common.files import write_atomic
from common.models.backbones.weights import SHIPPED_FILES, WITHOUT_FILE, file_sha256, find_weights
from server.deployment.bundle import build_bundle
from server.deployment.certificates import CA
from server.deployment.home import Home
from server.deployment.registry import is_site_name, require_site_name

FOLDER = "invitations"


def invite(
    home: Home, name: str, config: str, settings: tuple[str, ...] = (), out: Path | None = None
) -> tuple[Path, Invitation, str]:
    """Write an invitation; one of the same name is replaced.

    Args:
        home: the coordinator's folder.
        name: what the hospital is called from now on.
        config: of the run that is planned, by name or file: its frozen weights are named.
        settings: key=value texts that change it.
        out: the file; None: HOME/invitations/NAME.txt.

    Returns:
        The file, what is in it, and its fingerprint.

    Raises:
        ConfigError: a name that cannot be one, no such configuration, or a setting that it cannot take.
        WeightsError: the planned weights are not on this machine.
    """
    require_site_name("NAME", name)
    public = home.folder / PUBLIC
    invitation = Invitation(
        site=name,
        federation=home.settings.name,
        address=home.settings.address,
        flower=version("flwr"),
        ca=(home.folder / CA).read_text(encoding="utf-8"),
        release_key=read_public(public).line() if public.is_file() else "",
        backbone=_backbone(config, settings),
        bundle=build_bundle().content,
    )
    file = out or home.folder / FOLDER / f"{name}.txt"
    write_atomic(file, write_invitation(invitation))
    written, fingerprint = read_invitation(file)  # what was written is what a hospital will read
    return file, written, fingerprint


def was_invited(home: Home, name: str) -> bool:
    """Whether an invitation of that name lies in the home."""
    return is_site_name(name) and (home.folder / FOLDER / f"{name}.txt").is_file()


def _backbone(config: str, settings: tuple[str, ...]) -> Backbone:
    source = config_path(config)
    weights = load_config(source, settings).model.weights
    shown = weights if weights in (*WITHOUT_FILE, *SHIPPED_FILES) else "file"
    sha256 = "" if weights in WITHOUT_FILE else file_sha256(find_weights(weights))
    return Backbone(source.stem, shown, sha256)
