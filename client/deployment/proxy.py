"""The hospital's own web proxy, where its environment names one: Flower connects through it, so the checks must too."""

import base64
import socket
import time
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

MAX_ANSWER = 16_384  # bytes of an answer to CONNECT


@dataclass(frozen=True)
class Proxy:
    """A proxy as `https_proxy` names it.

    Attributes:
        login: `user:password`, or "".
    """

    scheme: str
    host: str
    port: int
    login: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"  # never the password


def https_proxy(host: str) -> Proxy | None:
    """The proxy that connections to `host` take here, by the environment (https_proxy, all_proxy, no_proxy); None: none.

    Raises:
        OSError: what the environment holds is no address.
    """
    named = getproxies()
    text = named.get("https") or named.get("all") or ""
    if not text or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        login = unquote(f"{parts.username}:{parts.password or ''}") if parts.username else ""
        port = parts.port or 80
    except ValueError as error:
        raise OSError(f"https_proxy of the environment is no address ({error})") from error
    if not parts.hostname:
        raise OSError("https_proxy of the environment is no address")
    return Proxy(parts.scheme, parts.hostname, port, login)


def tunnel(link: socket.socket, proxy: Proxy, host: str, port: int, patience: float) -> None:
    """Ask a proxy to pass everything on to host:port, whole and unread (HTTP CONNECT, RFC 9110, 9.3.6).

    Raises:
        OSError: it does not, says something else, or not in time.
    """
    if proxy.scheme != "http":
        raise OSError(f"a proxy of the kind {proxy.scheme}:// is not looked through here")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    login = f"Proxy-Authorization: Basic {base64.b64encode(proxy.login.encode()).decode()}\r\n" if proxy.login else ""
    link.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{login}\r\n".encode())
    deadline, answer = time.monotonic() + patience, b""
    while b"\r\n\r\n" not in answer:
        link.settimeout(max(0.001, deadline - time.monotonic()))
        piece = link.recv(1)  # what follows the empty line belongs to TLS
        answer += piece
        if not piece or len(answer) > MAX_ANSWER:
            raise OSError("it gave no answer to CONNECT")
    status = answer.split(b"\r\n")[0].decode("latin-1").partition(" ")[2]
    if not status.startswith("2"):
        raise OSError(f"it answered {status[:60]!r}")
    link.settimeout(patience)
