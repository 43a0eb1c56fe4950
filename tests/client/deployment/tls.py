"""Certificates made in the test, and a real TLS server on the loopback that answers /health."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    file: Path

    @classmethod
    def make(cls, folder: Path, name: str = "ca") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key, timedelta(days=-1), timedelta(days=400))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= {"key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        file = folder / f"{name}.crt"
        file.write_bytes(certificate.public_bytes(form.Encoding.PEM))
        return cls(key, certificate, file)

    def issue(self, folder: Path, *, host: str = "127.0.0.1", begin: float = -1.0, end: float = 90.0) -> tuple[Path, Path]:
        """Certificate and key for a host, valid from `begin` to `end` days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder("server", self.certificate.subject.rfc4514_string()[3:], key, timedelta(begin), timedelta(end))
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pem, secret = folder / "server.pem", folder / "server.key"
        pem.write_bytes(certificate.public_bytes(form.Encoding.PEM))
        secret.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
        return pem, secret


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, begin: timedelta, end: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
    )


@contextmanager
def door(
    pem: Path, key: Path, *, status: int = 200, clock: float = 0.0, dated: bool = True, silent: bool = False
) -> Iterator[int]:
    """A TLS server that answers every request with `status`; yields its port.

    Args:
        pem: the server's certificate.
        key: its private key.
        status: of HTTP.
        clock: seconds by which its clock is ahead of this one.
        dated: whether it sends a Date.
        silent: it never answers a request.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                with suppress(TimeoutError, OSError):
                    plain, _ = listener.accept()
                    plain.settimeout(5.0)
                    with context.wrap_socket(plain, server_side=True) as link:
                        link.recv(4096)
                        if silent:
                            ended.wait(20.0)
                            continue
                        date = f"Date: {formatdate(time.time() + clock, usegmt=True)}\r\n" if dated else ""
                        link.sendall(f"HTTP/1.1 {status} X\r\n{date}Content-Length: 2\r\n\r\nok".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            thread.join()
