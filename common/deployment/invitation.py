"""An invitation: one text file by which a coordinator asks a hospital to join. It holds no secret: keys are made at the hospital.

    FedMRI invitation 1
    fingerprint 3f2a 11c4 ...
    {JSON: site, federation, address, flower, ca, release_key, backbone, bundle}

The fingerprint is the first half of the SHA-256 of all that follows its line. A file that was cut or damaged on its way does not
have it; against a file that somebody forged whole helps the telephone alone: the coordinator reads the fingerprint out.
"""

import base64
import binascii
import hashlib
import json
import zipfile
from codecs import BOM_UTF8
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from common.config.site import check_name, split_address
from common.errors import ConfigError

HEAD, SECOND = "FedMRI invitation 1", "fingerprint "
MAX_BYTES = 40_000_000  # of a file: a bundle has 10 MiB at most
ANEW = "Ask the coordinator for it anew."


@dataclass(frozen=True)
class Backbone:
    """The frozen weights of the run that is planned."""

    config: str  # name of its configuration
    weights: str  # "phantom", "hub" or "random" as `model.weights` has it; "file": a file of the coordinator's
    sha256: str  # of the file; "" where there is none: "hub" and "random"


@dataclass(frozen=True)
class Invitation:
    """All that a hospital must know of the coordinator before it joins."""

    site: str  # what the hospital is called in the federation
    federation: str
    address: str  # host:port
    flower: str  # version of Flower at the coordinator; sites need the same
    ca: str  # the certificate authority, PEM
    release_key: str  # that signs released models, as minisign's one line; "": none
    backbone: Backbone
    bundle: bytes  # the code to be approved, a zip archive

    @property
    def bundle_sha256(self) -> str:
        """What the hospital approves."""
        return hashlib.sha256(self.bundle).hexdigest()


def write_invitation(invitation: Invitation) -> bytes:
    """The file's content."""
    table = asdict(invitation) | {"bundle": base64.b64encode(invitation.bundle).decode()}
    body = json.dumps(table, indent=1, sort_keys=True).encode() + b"\n"
    return f"{HEAD}\n{SECOND}{fingerprint(body)}\n".encode() + body


def fingerprint(body: bytes) -> str:
    """128 bits in eight groups, short enough to be read out: nobody finds another content that has them."""
    digits = hashlib.sha256(body).hexdigest()[:32]
    return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


def read_invitation(file: Path, told: str = "") -> tuple[Invitation, str]:
    """An invitation, and its fingerprint.

    Args:
        file: as it came.
        told: the fingerprint as the coordinator read it out; "": a person compares it afterwards.

    Raises:
        ConfigError: it cannot be read, was cut or changed, is another file or of another version, or has another fingerprint.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file}: expected an invitation, found a file of more than {MAX_BYTES // 10**6} MB. {ANEW}")
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}). Name the file that the coordinator sent.") from error
    # Mail programs and editors of other systems put a byte order mark before a text, and carriage returns at its lines' ends.
    head, _, rest = content.removeprefix(BOM_UTF8).replace(b"\r\n", b"\n").partition(b"\n")
    second, _, body = rest.partition(b"\n")
    if head != HEAD.encode():
        raise ConfigError(f"{file}: expected an invitation of FedMRI (its first line is {HEAD!r}). {ANEW}")
    found = fingerprint(body)
    if second != f"{SECOND}{found}".encode():
        raise ConfigError(f"{file}: this invitation was cut short or changed on its way: its fingerprint does not fit. {ANEW}")
    if told and "".join(told.lower().split()) != found.replace(" ", ""):
        raise ConfigError(
            f"{file}: the coordinator read out the fingerprint {told!r}, this invitation has {found}. Do not use it: it is an "
            "older one, or somebody else's. Nothing was written."
        )
    try:
        return _parse(json.loads(body)), found
    except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file}: expected an invitation as this version of FedMRI writes it ({error!r}). {ANEW}") from error


def _parse(table: dict[str, object]) -> Invitation:
    """Raises: ConfigError, KeyError, TypeError or ValueError: not of the agreed form."""
    backbone = table["backbone"]
    if not isinstance(backbone, dict):
        raise TypeError("backbone")
    found = Invitation(
        **{name: _text(table, name) for name in ("site", "federation", "address", "flower", "ca", "release_key")},
        backbone=Backbone(**{name: _text(backbone, name) for name in ("config", "weights", "sha256")}),
        bundle=_decode(_text(table, "bundle")),
    )
    check_name(found.site)
    split_address("address", found.address)
    with zipfile.ZipFile(BytesIO(found.bundle)) as archive:
        archive.namelist()
    return found


def _text(table: dict[str, object], name: str) -> str:
    value = table[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("bundle") from error
