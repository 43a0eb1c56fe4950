"""The coordinator's status on a terminal: a name in pieces is no name, and attempts and refusals are seen."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from rich.console import Console

from server.cli.run import waiting_lines
from server.deployment.certificates import CA_KEY, SERVER, SERVER_KEY, read_certificate
from server.deployment.credentials import ADMIN, token_file
from server.deployment.home import Home, ServerSettings
from server.deployment.provision import init_home, renew_certificate
from server.deployment.run_status import failure
from server.deployment.service import certificate_days, certificate_trouble
from server.deployment.status import ServerStatus, SiteStatus, in_order, server_status, show
from server.run.resume import only_run


def test_names_stay_whole_at_eighty_columns() -> None:
    run = {
        "state": "failed",
        "seconds": 31.0,
        "bytes_up": 3e6,
        "bytes_down": 3e6,
        "failures": 2,
        "reason": "the disk is full " * 5,
    }
    sites = tuple(SiteStatus(name, "registered", "", run) for name in ("university-north", "university-coast"))
    programs = {"superlink": {"state": "running", "since": "", "restarts": 0, "reason": "it was killed by a signal " * 4}}
    told = {"folder": "RUN", "state": "training", "round": 2, "rounds": 9, "sites": {}}
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, programs, sites, told)
    text = StringIO()
    Console(file=text, width=80).print(show(status))
    assert all(name in text.getvalue() for name in ("university-north", "university-coast", "superlink", "registered"))
    assert max(len(line) for line in text.getvalue().splitlines()) <= 80


def test_attempts_and_refusals_are_seen() -> None:
    run = {"state": "failed", "failures": 2, "rule": "federation.max_update_norm", "reason": "The norm is beyond it."}
    last = {"round": 2, "attempts": 2, "seconds": 3.0, "bytes_up": 1, "bytes_down": 1, "sites": ["a"]}
    last |= {"failures": [{"site": "b", "reason": "no reply within 9 s", "rule": "no-reply"}]}
    told = {"folder": "RUN", "state": "training", "round": 3, "rounds": 9, "attempt": 2, "sites": {}, "last_round": last}
    site = SiteStatus("b", "online", "", run)
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, {}, (site,), told)
    text = StringIO()
    Console(file=text, width=200).print(show(status))
    lines = text.getvalue().splitlines()
    assert any("refused by federation.max_update_norm: The norm is beyond it." in line for line in lines)
    assert "Run RUN: training, round 3 of 9, attempt 2" in lines
    assert "Last finished: Round 2: 1 site, 3.0 s, 0.0 MB, 2 attempts" in lines
    assert "  b: no-reply: no reply within 9 s" in lines


def test_why_a_run_failed_stands_beside_its_state(tmp_path) -> None:
    (tmp_path / "error.json").write_text('{"error": "The external folder is gone.\\nMend it."}')
    why = failure(tmp_path)
    told = {"folder": "RUN", "state": "failed", "round": 1, "rounds": 9, "sites": {}, "error": why}
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, {}, (), told)
    text = StringIO()
    Console(file=text, width=200).print(show(status))
    assert "Run RUN: failed (The external folder is gone. Mend it.), round 1 of 9" in text.getvalue().splitlines()
    assert failure(tmp_path / "elsewhere") == ""


@pytest.fixture
def home(tmp_path) -> Home:
    return init_home(tmp_path / "home", ServerSettings(address="localhost:8443"))


def dated(home: Home, days: float) -> None:
    """The server's certificate anew, by the same authority, which holds for so many days from now."""
    old, now = read_certificate(home.folder / SERVER), datetime.now(UTC)
    made = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=99)).not_valid_after(now + timedelta(days=days))
    key = load_pem_private_key((home.folder / CA_KEY).read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    (home.folder / SERVER).write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


@contextmanager
def door(home: Home, certificate: bytes) -> Iterator[int]:
    """A TLS server on the loopback that shows this certificate; its port."""
    file = home.folder / "held.pem"
    file.write_bytes(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, home.folder / SERVER_KEY)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("days", "says"), [(40.5, ""), (9.5, "expires in 9 days"), (-0.1, "has expired: neither"), (-9, "has expired")]
)
def test_a_certificate_that_ends_says_so_and_what_to_do(home, days, says) -> None:
    dated(home, days)
    told = certificate_trouble(home)
    assert (says in told) if says else told == ""
    assert not says or f"`fedmri-server renew {home.folder}`, then stop and start" in told
    status = ServerStatus("f", "a:1", "running", "serving", "serving", certificate_days(home), {}, (), {}, (told,))
    assert in_order(status) is (days > 0)


def test_a_service_that_holds_the_certificate_from_before_a_renewal_is_told(home, monkeypatch) -> None:
    dated(home, -1)
    before = (home.folder / SERVER).read_bytes()
    monkeypatch.setattr("server.deployment.service.running", lambda state: 1)
    with door(home, before) as port:
        here = replace(home, settings=replace(home.settings, superlink_port=port))
        assert "has expired" in certificate_trouble(here)
        renew_certificate(here)
        assert "holds another certificate than server.pem" in certificate_trouble(here)
    assert certificate_trouble(here) == ""  # nothing answers there now


def test_a_run_that_waits_says_why_it_asks_nobody_who_is_connected() -> None:
    sites = {"a": {"state": "paused", "reason": "not asked: the site has not approved\nthe bundle"}, "b": {"state": "answered"}}
    assert waiting_lines({"state": "waiting", "sites": sites}) == [
        "Waiting for hospitals. a: not asked: the site has not approved the bundle"
    ]
    assert waiting_lines({"state": "training", "sites": sites}) == waiting_lines({"state": "waiting"}) == []


def test_why_the_superlink_tells_nothing_is_said(home, monkeypatch) -> None:
    monkeypatch.setattr("server.deployment.status.superlink_serves", lambda home: True)
    token_file(home.folder, ADMIN).write_text("short")
    (told,) = server_status(home).troubles
    assert "admin.token: expected a token of 32 characters or more" in told


@pytest.mark.parametrize("held", [False, True])
def test_a_run_whose_folder_was_moved_is_dead_once_nobody_holds_it(home, held) -> None:
    out = home.runs / "moved"
    out.mkdir(parents=True)
    (out / "status.json").write_text('{"state": "evaluating", "round": 2, "rounds": 2, "updated": "2026-11-30T22:24:49+00:00"}')
    (home.state / "run.json").write_text(json.dumps({"id": "7", "out": str(home.runs / "as-it-was-called")}))
    with only_run(out) if held else nullcontext():
        run = server_status(home).run
    assert (run["state"], "its process is gone" in run.get("why", "")) == (("evaluating", False) if held else ("dead", True))
