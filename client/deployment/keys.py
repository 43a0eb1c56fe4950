"""A site's key pair and the certificate authority that it trusts. Elliptic curve P-384, as Flower's node authentication asks."""

import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from common.deployment.private_file import require_private
from common.errors import ConfigError
from common.files import write_atomic, write_secret


def make_key(path: Path, comment: str) -> str:
    """Make a key pair: the private half in `path` (OpenSSH format, for this user only), the public one in `path`.pub.

    Args:
        path: its folder is made, for this user only, where it is absent.
        comment: the site's name, after the public key.

    Returns:
        The public key's line.

    Raises:
        ConfigError: one of the two files is there already; nothing is overwritten.
    """
    public = path.with_name(f"{path.name}.pub")
    for file in (path, public):
        if os.path.lexists(file):
            raise ConfigError(
                f"{file} is there already; a key is never overwritten. Go on with it, or move both halves away and tell "
                "the coordinator, who must admit the new one."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    key = ec.generate_private_key(ec.SECP384R1())
    write_secret(path, key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()))
    line = _line(key, comment)
    write_atomic(public, f"{line}\n".encode())
    return line


def read_key(path: Path, comment: str = "") -> str:
    """The public key's line of a private key.

    Raises:
        ConfigError: it cannot be read, others may read it, or it is no elliptic curve key of 384 bits without a passphrase.
    """
    try:
        require_private(path, "use the site's private key")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the private key cannot be read ({error.strerror}). `fedmri-site init` makes one.") from error
    try:
        key = form.load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path}: expected a private key in OpenSSH format without a passphrase. Restore it, or move it away and make a new "
            "one with `fedmri-site init`."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: expected an elliptic curve key (P-384), got another. `fedmri-site init` makes the right one.")
    return _line(key, comment)


def read_ca(path: Path) -> x509.Certificate:
    """The certificate of an authority.

    Raises:
        ConfigError: it cannot be read, is not exactly one certificate in PEM form, or may not sign others.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Ask the coordinator for ca.crt.") from error
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{path}: holds a private key, which no site may have. Ask the coordinator for ca.crt alone.")
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{path}: expected a certificate in PEM form. Ask the coordinator for ca.crt.") from error
    if len(certificates) != 1:
        raise ConfigError(f"{path}: expected one certificate, got {len(certificates)}. Ask the coordinator for ca.crt.")
    try:
        is_ca = certificates[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise ConfigError(f"{path}: no authority's certificate (perhaps the server's own). Ask the coordinator for ca.crt.")
    return certificates[0]


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 in pairs, as `openssl x509 -fingerprint -sha256` shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _line(key: ec.EllipticCurvePrivateKey, comment: str) -> str:
    text = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
    return f"{text} {'-'.join(comment.split())}".strip()
