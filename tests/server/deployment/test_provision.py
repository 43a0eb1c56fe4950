"""What `init` leaves: keys that nobody else can read, a certificate that a strict TLS client takes, and nothing overwritten."""

import socket
import ssl
import stat
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from common.errors import ConfigError
from server.deployment.certificates import CA, CA_KEY, SERVER, SERVER_KEY, read_certificate
from server.deployment.home import Home, ServerSettings, open_home
from server.deployment.provision import SECRET, init_home, renew_certificate, write_configuration


@pytest.fixture
def home(tmp_path) -> Home:
    return init_home(tmp_path / "home", ServerSettings(address="fedmri.example.org:8443"))


def test_secrets_are_the_owners_only(home) -> None:
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    for name in (CA_KEY, SERVER_KEY, SECRET):
        assert stat.S_IMODE((home.folder / name).stat().st_mode) == 0o600, name
    assert len((home.folder / SECRET).read_bytes()) >= 32


@pytest.mark.parametrize("name", [CA_KEY, SERVER_KEY, SECRET, "release.key", "admin.token", "observer.token"])
def test_a_home_does_not_start_while_others_may_read_a_secret_of_it(home, name: str) -> None:
    (home.folder / name).chmod(0o640)
    with pytest.raises(ConfigError, match=rf"/{name}: other users may .* \(mode 0640\)\. Run: chmod 600 /.*/{name}$"):
        write_configuration(home)
    (home.folder / name).chmod(0o600)
    write_configuration(home)


def test_the_certificates_key_of_a_proxy_of_ones_own_may_be_its_users(tmp_path) -> None:
    home = init_home(tmp_path / "other", ServerSettings(address="a:8443", front="none"))
    (home.folder / SERVER_KEY).chmod(0o640)
    write_configuration(home)


def test_two_homes_share_no_secret(home, tmp_path) -> None:
    other = init_home(tmp_path / "other", home.settings)
    for name in (CA_KEY, SERVER_KEY, SECRET):
        assert (home.folder / name).read_bytes() != (other.folder / name).read_bytes()


def test_what_was_written_is_read_again(home) -> None:
    assert open_home(home.folder) == home


def test_an_existing_home_is_refused_and_left_alone(home) -> None:
    before = (home.folder / CA_KEY).read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        init_home(home.folder, home.settings)
    assert (home.folder / CA_KEY).read_bytes() == before


def test_a_file_in_the_way_is_refused(tmp_path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        init_home(tmp_path / "home", ServerSettings(address="a:1", front="none"))


def test_an_empty_folder_is_taken(tmp_path) -> None:
    assert init_home(tmp_path, ServerSettings(address="a:8443")).folder == tmp_path.resolve()


@pytest.mark.parametrize("address", ["fedmri.example.org:8443", "192.0.2.7:8443", "[2001:db8::1]:8443", "localhost:8443"])
def test_the_certificate_names_the_public_host_and_the_loopback(tmp_path, address) -> None:
    home = init_home(tmp_path / "home", ServerSettings(address=address))
    certificate = read_certificate(home.folder / SERVER)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {str(name.value) for name in names}
    assert found == {home.settings.host, "localhost", "127.0.0.1"}
    assert handshake(home, home.settings.host)


def test_openssl_takes_the_chain_by_its_strictest_rules(home) -> None:
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(home.folder / CA)]
    done = subprocess.run([*command, str(home.folder / SERVER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_host_and_another_authority_are_refused(home, tmp_path) -> None:
    other = init_home(tmp_path / "other", home.settings)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(home, "evil.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(home, "localhost", authority=other.folder / CA)


def test_a_renewed_certificate_is_taken_by_those_who_hold_the_old_authority(home) -> None:
    before = read_certificate(home.folder / SERVER)
    renew_certificate(home)
    assert read_certificate(home.folder / SERVER).serial_number != before.serial_number
    assert handshake(home, "localhost")
    (home.folder / CA_KEY).write_text("gone")
    with pytest.raises(ConfigError, match="private key of the certificate authority"):
        renew_certificate(home)


def test_nginx_and_flower_follow_the_settings(home) -> None:
    nginx = (home.folder / "nginx.conf").read_text()
    assert "listen 0.0.0.0:8443 ssl;" in nginx
    assert "server 127.0.0.1:9092;" in nginx
    assert "@" not in nginx
    connection = tomllib.loads((home.home / "config.toml").read_text())["superlink"]["fedmri"]
    assert connection == {"address": "127.0.0.1:9092", "root-certificates": str(home.folder / CA)}
    (home.folder / "server.toml").write_text('address = "fedmri.example.org:9443"\nsuperlink_port = 7000\n')
    write_configuration(open_home(home.folder))
    assert "listen 0.0.0.0:9443 ssl;" in (home.folder / "nginx.conf").read_text()
    assert "127.0.0.1:7000" in (home.home / "config.toml").read_text()


def handshake(home: Home, host: str, authority: Path | None = None) -> bool:
    """A real TLS handshake with the home's certificate, as Python's own client does it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home.folder / SERVER, home.folder / SERVER_KEY)
    client = ssl.create_default_context(cafile=str(authority or home.folder / CA))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=host) as wrapped:
            return wrapped.version() == "TLSv1.3"
    finally:
        here.close()
        thread.join(10)
