"""The way to the coordinator through a hospital's own proxy, and answers that never end."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.deployment.connectivity import UnreachableError, reach
from client.deployment.proxy import Proxy, https_proxy
from tests.client.deployment.tls import Authority, door


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose first connection is served in a thread."""

    def work() -> None:
        with suppress(OSError):
            link, _ = server.accept()
            with link:
                serve(link)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)
        thread = threading.Thread(target=work)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(4096):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class PassOn:
    """A proxy that takes CONNECT, and remembers what it was asked."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer, self.asked = answer, b""

    def __call__(self, link: socket.socket) -> None:
        while b"\r\n\r\n" not in self.asked:
            self.asked += link.recv(4096)
        link.sendall(self.answer)
        if b" 200 " not in self.answer:
            return
        host, _, port = self.asked.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            back = threading.Thread(target=copy, args=(there, link))
            back.start()
            copy(link, there)
            back.join()


def test_a_proxy_of_the_environment_is_gone_through(tmp_path: Path, authority: Authority, monkeypatch) -> None:
    proxy = PassOn()
    with door(*authority.issue(tmp_path)) as port, listener(proxy) as at:
        monkeypatch.setenv("https_proxy", f"http://ada:pass%20word@127.0.0.1:{at}")
        found = reach("127.0.0.1", port, authority.file, 5.0)
    assert found.status == 200
    assert found.proxy == f"127.0.0.1:{at}"
    assert proxy.asked.startswith(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic YWRhOnBhc3Mgd29yZA==\r\n" in proxy.asked


def test_no_proxy_is_heeded(tmp_path: Path, authority: Authority, monkeypatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with door(*authority.issue(tmp_path)) as port:
        assert reach("127.0.0.1", port, authority.file, 5.0).proxy == ""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"SSH-2.0\r\n\r\n", "it answered"),
        (b"HTTP/1.1 ", "no answer"),
        (b"x" * 20_000, "no answer"),
    ],
)
def test_a_proxy_that_does_not_lead_there_is_named_without_its_password(
    authority: Authority, monkeypatch, answer: bytes, words: str
) -> None:
    with listener(PassOn(answer)) as at:
        monkeypatch.setenv("https_proxy", f"http://ada:secret@127.0.0.1:{at}")
        with pytest.raises(UnreachableError, match=words) as caught:
            reach("fedmri.invalid", 8443, authority.file, 2.0)
    assert caught.value.step == "port"
    assert f"The proxy 127.0.0.1:{at}" in str(caught.value)
    assert "NO_PROXY=fedmri.invalid" in caught.value.advice
    assert "secret" not in f"{caught.value} {caught.value.advice}"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_whatever_the_environment_holds_is_an_address_or_refused(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", text)
        patch.delenv("no_proxy", raising=False)
        try:
            found = https_proxy("fedmri.invalid")
        except OSError:
            return
    assert found is None or (isinstance(found, Proxy) and found.host)


def test_an_answer_that_drips_is_cut(tmp_path: Path, authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(tmp_path))
    ended, cut = threading.Event(), threading.Event()

    def drip(plain: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as link:
            link.recv(4096)
            link.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                link.sendall(b"x")

    with listener(drip) as port:

        def ask() -> None:
            with suppress(UnreachableError):
                reach("127.0.0.1", port, authority.file, 1.0)
                return
            cut.set()

        threading.Thread(target=ask, daemon=True).start()
        found = cut.wait(30.0)
        ended.set()
    assert found, "it still waits for the end of an answer that has none"
