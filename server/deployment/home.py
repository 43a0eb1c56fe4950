"""The coordinator's home folder and its one file of settings, `server.toml`."""

import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from common.config.site import check_name, split_address
from common.deployment.flower_cli import flower_environment
from common.errors import ConfigError
from common.schema import build, check_ranges, choice, ranged

FILE_NAME = "server.toml"


@dataclass(frozen=True)
class ServerSettings:
    """All that `server.toml` may hold."""

    name: str = "fedmri"  # of the federation, in its certificates and in `status`
    address: str = ""  # host:port at which the hospitals reach the coordinator; the host stands in the certificate
    listen: str = ""  # IP:port that nginx takes; "": all addresses of this machine, at the port of `address`
    front: str = choice("nginx", "nginx", "none")  # "none": you run a proxy of your own, by the rules of nginx.conf
    superlink_port: int = ranged(9092, 1, 65535)  # of the loopback: Flower's SuperLink
    health_port: int = ranged(9093, 1, 65535)  # of the loopback: its health service
    runs: str = "runs"  # folder of the run folders, relative to server.toml

    def __post_init__(self) -> None:
        check_name(self.name)
        split_address("address", self.address)
        check_ranges(self)
        if not self.runs.strip():
            raise ConfigError("runs: expected a folder, got ''.")
        ports = [self.superlink_port, self.health_port]
        if self.front == "nginx":
            host, port = split_address("listen", self.listen_at)
            _check_ip("listen", host)
            ports.append(port)
        if len(set(ports)) < len(ports):
            raise ConfigError(f"superlink_port, health_port and the port that nginx takes must differ, got {ports}.")

    @property
    def host(self) -> str:
        """What the hospitals call the coordinator's machine."""
        return split_address("address", self.address)[0]

    @property
    def listen_at(self) -> str:
        """IP:port that nginx takes."""
        return self.listen or f"0.0.0.0:{split_address('address', self.address)[1]}"


@dataclass(frozen=True)
class Home:
    """The coordinator's folder; it serves as place of `flwr` commands too."""

    folder: Path  # absolute
    settings: ServerSettings

    @property
    def home(self) -> Path:
        """FLWR_HOME, and the working folder of Flower's programs: nothing that Python could import lies there."""
        return self.folder / "flower"

    @property
    def environment(self) -> dict[str, str]:
        """Of every program of Flower's."""
        return flower_environment(self.home)

    @property
    def state(self) -> Path:
        """What runs now, logs, Flower's database."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """Of the SuperLink."""
        return self.log_of("superlink")

    def log_of(self, program: str) -> Path:
        """The log of one of the programs."""
        return self.state / "logs" / f"{program}.log"

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self.folder / self.settings.runs

    @property
    def superlink(self) -> str:
        """Where the SuperLink answers: this machine only."""
        return f"127.0.0.1:{self.settings.superlink_port}"

    @property
    def health(self) -> str:
        """Where its health service answers."""
        return f"127.0.0.1:{self.settings.health_port}"


def open_home(folder: Path) -> Home:
    """Read a coordinator's home.

    Raises:
        ConfigError: it is none, or server.toml is wrong: names the file and the key.
    """
    folder = folder.expanduser().resolve()
    file = folder / FILE_NAME
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}). Make a home with `fedmri-server init`.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid TOML ({error}).") from error
    try:
        return Home(folder, build(ServerSettings, table))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _check_ip(key: str, text: str) -> None:
    try:
        ip_address(text)
    except ValueError as error:
        raise ConfigError(f"{key}: expected IP:port, such as 0.0.0.0:8443, got host {text!r}.") from error
