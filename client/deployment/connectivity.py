"""Reach the coordinator as the site's SuperNode will: name, port, TLS by the site's own authority, then /health over it.

Every step ends by itself; what went wrong is told by the step, since each has another cause.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from client.deployment.proxy import https_proxy, tunnel
from common.errors import FedMRIError

PATIENCE = 10.0  # seconds for each step
_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64  # OpenSSL's X509_V_ERR_*


class UnreachableError(FedMRIError):
    """The coordinator was not reached.

    Args:
        step: which step failed: "name", "port", "TLS" or "health".
        advice: what to do about it.
    """

    public_default = "the coordinator was not reached"

    def __init__(self, step: str, message: str, advice: str) -> None:
        super().__init__(message)
        self.step, self.advice = step, advice


@dataclass(frozen=True)
class Reached:
    """The answer of the coordinator's /health.

    Attributes:
        status: HTTP status of /health.
        ahead: seconds by which this machine's clock is ahead of the server's (negative: behind), to about a second; None where
            the answer has no date.
        days_left: until the server's certificate expires.
        proxy: the hospital's own proxy that the connection went through, or "".
    """

    status: int
    ahead: float | None
    days_left: float
    proxy: str = ""


def reach(host: str, port: int, ca: Path, patience: float = PATIENCE) -> Reached:
    """Ask https://host:port/health, trusting the site's authority alone.

    Raises:
        UnreachableError: names the step that failed, and why in plain words.
    """
    plain, proxy = _link(host, port, patience)
    try:
        with _handshake(plain, host, port, ca) as door:
            expires = ssl.cert_time_to_seconds(str((door.getpeercert() or {})["notAfter"]))
            status, ahead = _health(door, host, port, patience)
    finally:
        plain.close()
    return Reached(status, ahead, (expires - time.time()) / 86400, proxy)


def _link(host: str, port: int, patience: float) -> tuple[socket.socket, str]:
    """A connection to host:port, and the name of the proxy that it goes through, if any."""
    try:
        proxy = https_proxy(host)
    except OSError as error:
        raise UnreachableError("port", f"{error}.", "Correct it where the site is started, or unset it.") from error
    if proxy is None:
        return _connect(host, port, resolve(host, port, patience), patience), ""
    plain = _connect(proxy.host, proxy.port, resolve(proxy.host, proxy.port, patience), patience)
    try:
        tunnel(plain, proxy, host, port, patience)
    except OSError as error:
        plain.close()
        why = f"no answer within {patience:g} s" if isinstance(error, TimeoutError) else str(error)
        raise UnreachableError(
            "port",
            f"The proxy {proxy}, which https_proxy names here, does not lead to {host}:{port} ({why}).",
            f"Ask your network's administrator to let CONNECT to {host}:{port} pass; or, where the direct way is open, set "
            f"NO_PROXY={host} where the site is started.",
        ) from error
    return plain, str(proxy)


def resolve(host: str, port: int, patience: float) -> list[Any]:
    """The host's addresses; asked in a thread, because the system's resolver knows no time-out.

    Raises:
        UnreachableError: none, or no answer in time.
    """
    found: list[Any] = []
    trouble: list[str] = []

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            trouble.append(getattr(error, "strerror", None) or str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    if not found:
        why = trouble[0] if trouble else f"no answer within {patience:g} s"
        raise UnreachableError(
            "name",
            f"The name {host} has no address here ({why}).",
            "Compare server in site.toml with what the coordinator gave; if it is right, ask your network's administrator (DNS).",
        )
    return found


def _connect(host: str, port: int, addresses: list[Any], patience: float) -> socket.socket:
    """A connection to the first address that answers, all of them within `patience`."""
    deadline, why = time.monotonic() + patience, ""
    for family, kind, protocol, _, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        link = socket.socket(family, kind, protocol)
        link.settimeout(left)
        try:
            link.connect(address)
            link.settimeout(patience)
            return link
        except TimeoutError:
            link.close()
            why = f"no answer within {patience:g} s"
        except OSError as error:
            link.close()
            why = error.strerror or str(error)
    advice = (
        f"A firewall swallows the connection. Ask for outgoing TCP to {host}, port {port}."
        if "no answer" in why
        else f"Is the coordinator's server up, and port {port} right? A firewall may also refuse: ask for outgoing TCP to {host}."
    )
    raise UnreachableError("port", f"Port {port} of {host} does not answer ({why}).", advice)


def _handshake(plain: socket.socket, host: str, port: int, ca: Path) -> ssl.SSLSocket:
    where = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        raise UnreachableError("TLS", f"{ca}: not a certificate ({error}).", "Ask the coordinator for ca.crt.") from error
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError("TLS", *_distrust(error, where, host)) from error
    except TimeoutError as error:
        advice = "A firewall or proxy may hold it up. Ask your network's administrator for a direct connection."
        raise UnreachableError("TLS", f"{where} takes the connection but never answers.", advice) from error
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        advice = "Is it the right port? A proxy in between may also be the cause."
        raise UnreachableError("TLS", f"{where} does not speak TLS ({why}).", advice) from error


def _distrust(error: ssl.SSLCertVerificationError, where: str, host: str) -> tuple[str, str]:
    """In plain words why a certificate was refused, and what to do."""
    code = error.verify_code
    if code == _EXPIRED:
        return (
            f"The certificate of {where} has expired, or this machine's clock is ahead.",
            "Look at the clock; if it is right, ask the coordinator to renew the server's certificate.",
        )
    if code == _NOT_YET:
        return (
            f"The certificate of {where} is not valid yet: this machine's clock is behind, or the coordinator's is ahead.",
            "Set the clock (NTP).",
        )
    if code in (_OTHER_HOST, _OTHER_ADDRESS):
        return (
            f"{where} has a certificate for another name than {host}.",
            "Compare server in site.toml with what the coordinator gave; if it is right, their certificate must be made for it.",
        )
    return (
        f"{where} has a certificate that is not from the authority in ca.crt ({error.verify_message}).",
        "Someone may stand between (a proxy that opens TLS, or worse), or ca.crt is not the coordinator's: compare fingerprints "
        "by telephone, and ask your network's administrator not to open this connection.",
    )


def _health(door: ssl.SSLSocket, host: str, port: int, patience: float) -> tuple[int, float | None]:
    """Status of /health, and by how much this clock is ahead of the answer's date."""
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    connection.sock = door
    before = time.time()
    try:
        with _cut_after(door, patience):
            connection.request("GET", "/health", headers={"Connection": "close"})
            answer = connection.getresponse()
            answer.read(1 << 16)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            "health",
            f"{host}:{port} speaks TLS, but gives no answer to /health ({type(error).__name__}).",
            "Tell the coordinator: their server or its door (nginx) does not work.",
        ) from error
    here = (before + time.time()) / 2
    try:
        there = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5  # the header has whole seconds
    except (TypeError, ValueError, KeyError, OverflowError):
        return answer.status, None
    return answer.status, here - there


@contextmanager
def _cut_after(link: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection that is still busy after `seconds`: the socket's own time-out begins anew with every byte.

    Raises:
        TimeoutError: it was.
    """

    def cut() -> None:
        with suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_RDWR)  # not SSLSocket's, which takes TLS away under the reader

    timer, deadline = threading.Timer(seconds, cut), time.monotonic() + seconds
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if time.monotonic() >= deadline:
        raise TimeoutError
