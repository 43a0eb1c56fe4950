"""The coordinator's programs: SuperLink, SuperExec and nginx, kept alive until they are stopped."""

import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

from cryptography import x509

from common.config.site import split_address
from common.deployment.flower_cli import program
from common.deployment.supervisor import Program, Supervisor, running
from common.errors import ConfigError, FederationError, FedMRIError
from server.deployment.certificates import CA, SERVER, SERVER_KEY, read_certificate
from server.deployment.credentials import HOME_VARIABLE
from server.deployment.health import front_serves, port_taken, superlink_serves
from server.deployment.home import Home
from server.deployment.provision import NGINX, SECRET, write_configuration
from server.deployment.registry import admitted, synchronise
from server.deployment.superlink_nodes import DATABASE, connect

SUPERLINK = "superlink"
READY = "ready"  # in state/: the service answers and knows its sites
START_SECONDS = 90.0
CHECKOUT = Path(__file__).resolve().parents[2]
RENEW_DAYS = 30
SHOWN_SECONDS = 2.0  # for a handshake on the loopback

Say = Callable[[str], None]


def serve(home: Home, say: Say) -> None:
    """Run all programs until SIGTERM or SIGINT. Call it from the main thread.

    Args:
        home: the coordinator's folder.
        say: called when the service is ready, and with what is wrong.

    Raises:
        ConfigError: nginx is not installed, a port is taken, a certificate or a key is not usable.
        FederationError: it runs already.
    """
    _require_startable(home)
    write_configuration(home)
    ready = home.state / READY
    ready.unlink(missing_ok=True)

    def ended(one: Program, code: int) -> str:
        if one.name == SUPERLINK and ready.exists():  # it may come back with an empty database
            threading.Thread(target=_introduce, args=(home, say), daemon=True).start()
        return _last_words(one.log)

    supervisor = Supervisor(programs(home), home.state, on_exit=ended)
    threading.Thread(target=_get_ready, args=(home, say), daemon=True).start()
    try:
        supervisor.run()
    finally:
        ready.unlink(missing_ok=True)


def serve_in_background(home: Home) -> int:
    """Start `serve` in a process of its own and wait until it is ready.

    Returns:
        Its process id.

    Raises:
        FederationError: it did not become ready; what it said.
    """
    _require_startable(home)
    log = home.log_of("service")
    log.parent.mkdir(parents=True, exist_ok=True)
    (home.state / READY).unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli.main", "start", str(home.folder)],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS + 5
    while not (home.state / READY).is_file():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
            raise FederationError(f"The service did not start. {said or 'Its logs are in ' + str(log.parent)}")
        time.sleep(0.2)
    return process.pid


def programs(home: Home) -> tuple[Program, ...]:
    """The commands, in the order of their start."""
    folder = home.folder
    superlink = [sys.executable, "-P", "-m", "server.deployment.superlink", "--host", "127.0.0.1"]
    superlink += ["--port", str(home.settings.superlink_port)]
    superlink += ["--ssl-ca-certfile", str(folder / CA), "--ssl-certfile", str(folder / SERVER)]
    superlink += ["--ssl-keyfile", str(folder / SERVER_KEY), "--enable-supernode-auth", "--isolation", "process"]
    superlink += ["--superexec-auth-secret-file", str(folder / SECRET), "--database", str(home.state / DATABASE)]
    superlink += ["--disable-runtime-dependency-installation", "--health-server-address", home.health]
    superexec = [program("flower-superexec"), "--root-certificates", str(folder / CA), "--runtime-api-address", home.superlink]
    superexec += ["--superexec-auth-secret-file", str(folder / SECRET)]
    commands = {SUPERLINK: superlink, "superexec": superexec}
    if home.settings.front == "nginx":
        commands["nginx"] = [nginx(), "-e", "stderr", "-p", f"{folder}/", "-c", str(folder / NGINX), "-g", "daemon off;"]
    environment = home.environment | {HOME_VARIABLE: str(folder)}
    return tuple(Program(name, tuple(command), home.log_of(name), environment, home.home) for name, command in commands.items())


def nginx() -> str:
    """Path of nginx.

    Raises:
        ConfigError: it is not installed.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise ConfigError(
            "nginx is not installed; it is the only door for hospitals. Install it (apt-get install nginx-light), or set "
            'front = "none" in server.toml and put a proxy of your own before the SuperLink, by the rules of nginx.conf.'
        )
    return found


def certificate_days(home: Home) -> int:
    """Days until the server's certificate expires."""
    return (read_certificate(home.folder / SERVER).not_valid_after_utc - datetime.now(UTC)).days


def certificate_trouble(home: Home) -> str:
    """What is to be done about the server's certificate, in a sentence; "" where nothing is."""
    renew, again = f"fedmri-server renew {quote(str(home.folder))}", "then stop and start the service"
    served = _served_certificate(home) if running(home.state) is not None else None
    if served and served != read_certificate(home.folder / SERVER):
        until = f"{served.not_valid_after_utc:%Y-%m-%d}"
        return f"The service holds another certificate than {SERVER}, which is valid until {until}: stop and start it."
    days = certificate_days(home)
    if days < 0:
        return f"The certificate has expired: neither hospitals nor runs can connect. Give `{renew}`, {again}."
    return f"The certificate expires in {days} days: `{renew}`, {again}." if days < RENEW_DAYS else ""


def _served_certificate(home: Home) -> x509.Certificate | None:
    """That which the SuperLink shows; None where it does not answer."""
    try:
        shown = ssl.get_server_certificate(("127.0.0.1", home.settings.superlink_port), timeout=SHOWN_SECONDS)
        return x509.load_pem_x509_certificate(shown.encode())
    except (OSError, ValueError):
        return None


def _require_startable(home: Home) -> None:
    """Refuse at once what would only end in programs that are started again and again."""
    pid = running(home.state)
    if pid is not None:
        raise FederationError(f"Already running (process {pid}). Stop it with `fedmri-server stop {quote(str(home.folder))}`.")
    if home.settings.front == "nginx":
        nginx()
    for name in (SECRET, CA, SERVER_KEY):
        if not (home.folder / name).is_file():
            raise ConfigError(f"{home.folder / name} is missing: restore it from the backup, or make a new home.")
    if certificate_days(home) < 0:
        raise ConfigError(
            f"{home.folder / SERVER} has expired. Make a new one with `fedmri-server renew {quote(str(home.folder))}`."
        )
    admitted(home)
    ports = [("127.0.0.1", home.settings.superlink_port), ("127.0.0.1", home.settings.health_port)]
    if home.settings.front == "nginx":
        ports.append(split_address("listen", home.settings.listen_at))
    for host, port in ports:
        if port_taken(host, port):
            raise ConfigError(
                f"Port {port} of {host} cannot be had: another program holds it, or it is below 1024. See server.toml."
            )


def _get_ready(home: Home, say: Say) -> None:
    """Say so once all programs answer and the SuperLink knows its sites."""
    _introduce(home, say)
    (home.state / READY).touch()
    say(f"Ready at {home.settings.address}, {len(admitted(home))} sites admitted.")
    if trouble := certificate_trouble(home):
        say(trouble)


def _introduce(home: Home, say: Say) -> None:
    """Wait until all programs answer, then pass the registry to the SuperLink, with retries: a revoked site must not stay in."""
    deadline, front, told = time.monotonic() + START_SECONDS, home.settings.front == "nginx", False
    while True:
        trouble = f"not ready after {START_SECONDS:g} s; the logs are in {home.log.parent}"
        try:
            if superlink_serves(home) and (not front or front_serves(home)):
                with connect(home) as nodes:
                    synchronise(home, nodes)
                break
        except FedMRIError as error:
            trouble = str(error)
        if time.monotonic() > deadline and not told:
            told = True
            say(f"Not ready: {trouble}. It goes on trying.")
        time.sleep(0.3)


def _last_words(log: Path) -> str:
    """The last line of a log that tells of an error."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
    except OSError:
        return ""
    telling = [line.strip() for line in lines if any(word in line for word in ("Error", "ERROR", "[emerg]", "Traceback"))]
    return telling[-1][:300] if telling else ""
