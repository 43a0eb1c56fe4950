"""A deployed site's folder: where site.toml, key, certificate authority and state are, as absolute paths."""

from dataclasses import dataclass
from pathlib import Path

from common.config.site import SiteConfig, read_site_config, split_address
from common.errors import ConfigError
from common.models.backbones.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER


@dataclass(frozen=True)
class SiteHome:
    """The folder that `fedmri-site init` has made, with absolute paths."""

    toml: Path
    config: SiteConfig

    @property
    def folder(self) -> Path:
        """The folder of site.toml, to which all its paths are relative."""
        return self.toml.parent

    @property
    def name(self) -> str:
        """The site's name; that of the folder where site.toml gives none."""
        return self.config.name or self.folder.name

    @property
    def server(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        return split_address("connection.server", self.config.connection.server)

    @property
    def address(self) -> str:
        """The server as host:port, as site.toml has it."""
        return self.config.connection.server

    @property
    def key(self) -> Path:
        """The private key; it never leaves this machine."""
        return self.folder / Path(self.config.connection.key).expanduser()

    @property
    def public_key(self) -> Path:
        """The file to send to the coordinator."""
        return self.key.with_name(f"{self.key.name}.pub")

    @property
    def ca(self) -> Path:
        """The one certificate authority that is trusted."""
        return self.folder / Path(self.config.connection.ca).expanduser()

    @property
    def state(self) -> Path:
        """Folder of logs, audit log, refused bundles and process status."""
        return self.folder / Path(self.config.connection.state).expanduser()

    @property
    def weights(self) -> Path:
        """Folder of frozen weights, by hash; a cache may be deleted, this may not."""
        return self.folder / WEIGHTS_FOLDER

    @property
    def logs(self) -> Path:
        """What the programs print."""
        return self.state / "logs"


def open_home(path: Path) -> SiteHome:
    """Read a deployed site's site.toml.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        ConfigError: it is absent, refused, or says nothing of a coordinator.
    """
    toml = (path / "site.toml" if path.is_dir() else path).absolute()
    if not toml.is_file():
        raise ConfigError(f"{toml}: no such file. Make it with `fedmri-site init FOLDER --server HOST:PORT --ca ca.crt`.")
    config = read_site_config(toml)
    if not config.connection.server:
        raise ConfigError(f"{toml}: no server under [connection]. `fedmri-site init` adds that section.")
    return SiteHome(toml, config)
