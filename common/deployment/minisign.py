"""Signatures as minisign makes them: Ed25519 over the BLAKE2b-512 of a file, with a trusted comment that is signed too.

The formats are those of https://jedisct1.github.io/minisign (public keys and signatures; private keys are PKCS#8 PEM, which
`openssl` reads). The key's number is the beginning of the public key's SHA-256, so that it need not be kept.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.deployment.private_file import require_private
from common.errors import ConfigError, FedMRIError
from common.files import write_atomic, write_secret

KEY, PUBLIC, SUFFIX = "release.key", "release.pub", ".minisig"
HASHED = b"ED"  # the signature is over the file's hash; `Ed` names the key's algorithm
UNTRUSTED, TRUSTED = "untrusted comment: ", "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """A key to verify with."""

    key: Ed25519PublicKey
    number: bytes  # 8 bytes, which signatures name

    def line(self) -> str:
        """The key as one line of base64: what minisign's -P takes."""
        return base64.b64encode(b"Ed" + self.number + _raw(self.key)).decode()


def make_key(folder: Path, passphrase: str) -> PublicKey:
    """Write release.key (0600) and release.pub.

    Args:
        folder: made where it is absent.
        passphrase: "": the key is not encrypted.

    Raises:
        ConfigError: the folder cannot be written to, or a key is there already; it is never overwritten.
    """
    private = Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
    content = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}). Name a folder that you may write to.") from error
    try:
        write_secret(folder / KEY, content)
    except FileExistsError as error:
        raise ConfigError(f"{folder / KEY} is there already. A key is never overwritten: name another folder.") from error
    except OSError as error:
        raise ConfigError(
            f"{folder / KEY}: cannot be written ({error.strerror}). Name a folder that you may write to."
        ) from error
    public = _public(private)
    text = f"{UNTRUSTED}minisign public key {_shown(public.number)}\n{public.line()}\n"
    write_atomic(folder / PUBLIC, text.encode())
    return public


def is_locked(path: Path) -> bool:
    """Whether the private key needs a passphrase."""
    return b"ENCRYPTED PRIVATE KEY" in _read(path, "the release key")


def read_key(path: Path, passphrase: str) -> Ed25519PrivateKey:
    """The private key.

    Raises:
        ConfigError: it cannot be read, others may read it, the passphrase is wrong, or it is another kind of key.
    """
    content = _read(path, "the release key")
    require_private(path, "use the release key")
    try:
        key = form.load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: cannot be opened; the passphrase is wrong or missing, or it is no private key.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 key. `fedmri-server release-key` makes one.")
    return key


def read_public(path: Path) -> PublicKey:
    """A public key in minisign's form.

    Raises:
        ConfigError: it is none.
    """
    lines = [line for line in _text(path, "the public key").splitlines() if line.strip()]
    raw = _decode(lines[-1]) if lines else b""
    if len(raw) != 42 or raw[:2] != b"Ed":
        raise ConfigError(f"{path}: expected a public key as `fedmri-server release-key` or minisign writes it.")
    return PublicKey(Ed25519PublicKey.from_public_bytes(raw[10:]), raw[2:10])


def sign(path: Path, private: Ed25519PrivateKey, comment: str) -> None:
    """Write the signature beside the file, as FILE.minisig.

    The signature also covers `comment`, one line.
    """
    signature = private.sign(_digest(path.read_bytes()))
    both = private.sign(signature + comment.encode())
    line = base64.b64encode(HASHED + _public(private).number + signature).decode()
    text = f"{UNTRUSTED}signature of {path.name}\n{line}\n{TRUSTED}{comment}\n{base64.b64encode(both).decode()}\n"
    write_atomic(path.with_name(path.name + SUFFIX), text.encode())


def verify(path: Path, content: bytes, public: PublicKey) -> str:
    """Check FILE.minisig against what was read of the file.

    `content` is the bytes that the caller goes on to use, so that what is checked is what is used.

    Returns:
        The trusted comment.

    Raises:
        FedMRIError: no signature, one by another key, or one that does not fit; names the file.
    """
    return check_signature(path.name, content, _text(path.with_name(path.name + SUFFIX), "the signature"), public)


def check_signature(name: str, content: bytes, signature: str, public: PublicKey) -> str:
    """As `verify`, of a file and its signature that lie nowhere yet.

    Args:
        name: of the file, for what is said.
        content: of the file.
        signature: text of its .minisig.
        public: the key that must have signed.
    """
    place, lines = f"{name}{SUFFIX}", signature.split("\n")
    raw, both = (_decode(lines[1]), _decode(lines[3])) if len(lines) >= 4 else (b"", b"")
    if len(raw) != 74 or len(both) != 64 or raw[:2] != HASHED or not lines[2].startswith(TRUSTED):
        raise FedMRIError(f"{place}: not a signature. Do not use these files; take them anew from their maker.")
    if raw[2:10] != public.number:
        raise FedMRIError(
            f"{place}: signed by another key ({_shown(raw[2:10])}) than the one given ({_shown(public.number)}). "
            "Do not use these files unless their maker confirms that the other key is theirs."
        )
    comment = lines[2].removeprefix(TRUSTED)
    for made, signed, where in ((raw[10:], _digest(content), name), (both, raw[10:] + comment.encode(), place)):
        try:
            public.key.verify(made, signed)
        except InvalidSignature as error:
            raise FedMRIError(f"{where}: the signature does not fit; it was changed. Do not use these files.") from error
    return comment


def _public(private: Ed25519PrivateKey) -> PublicKey:
    key = private.public_key()
    return PublicKey(key, hashlib.sha256(_raw(key)).digest()[:8])


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content).digest()


def _shown(number: bytes) -> str:
    """As minisign prints it: a little-endian number."""
    return number[::-1].hex().upper()


def _decode(line: str) -> bytes:
    """The bytes of a line of base64; none where it is not the one way to write them."""
    try:
        raw = base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.b64encode(raw).decode() == line.strip() else b""


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {what} cannot be read ({error.strerror}).") from error


def _text(path: Path, what: str) -> str:
    try:
        return _read(path, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FedMRIError(f"{path}: {what} is no text. Take it anew.") from error
