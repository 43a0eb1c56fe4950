"""The federation's own certificate authority: EC P-384, which signs the coordinator's certificate and nothing else."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError
from common.files import write_atomic, write_secret

CA_KEY, CA, SERVER_KEY, SERVER = "ca.key", "ca.crt", "server.key", "server.pem"
CA_DAYS, SERVER_DAYS = 3650, 825
LOCAL_NAMES = ("localhost", "127.0.0.1")  # by which nginx, SuperExec and `flwr` reach the SuperLink


def make_authority(folder: Path, name: str) -> None:
    """Write ca.key (0600) and ca.crt.

    The certificate carries `name`, the federation's.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _name(f"{name} certificate authority")
    certificate = (
        _builder(subject, subject, key.public_key(), key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    write_secret(folder / CA_KEY, _pem(key), replace=True)
    write_atomic(folder / CA, certificate.public_bytes(Encoding.PEM))


def make_certificate(folder: Path, host: str) -> datetime:
    """Write server.key (0600) and server.pem, for `host`, localhost and 127.0.0.1; existing ones are replaced.

    Returns:
        When it expires.

    Raises:
        ConfigError: ca.key or ca.crt cannot be read, or the authority itself has expired.
    """
    authority, signer = read_certificate(folder / CA), _read_key(folder / CA_KEY)
    days = min(SERVER_DAYS, (authority.not_valid_after_utc - datetime.now(UTC)).days)
    if days < 1:
        raise ConfigError(f"{folder / CA}: the certificate authority has expired. Make a new home with `fedmri-server init`.")
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _builder(_name(host), authority.subject, key.public_key(), signer.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in dict.fromkeys((host, *LOCAL_NAMES))]), False)
        .sign(signer, hashes.SHA384())
    )
    write_secret(folder / SERVER_KEY, _pem(key), replace=True)
    write_atomic(folder / SERVER, certificate.public_bytes(Encoding.PEM))
    return certificate.not_valid_after_utc


def read_certificate(file: Path) -> x509.Certificate:
    """Read a PEM certificate.

    Raises:
        ConfigError: it is absent or none.
    """
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: expected a PEM certificate; {error}.") from error


def _read_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file}: expected the private key of the certificate authority; {error}.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{file}: expected an EC key, as `fedmri-server init` makes it.")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """What both certificates have in common. It begins an hour ago: hospitals' clocks may be slow."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
