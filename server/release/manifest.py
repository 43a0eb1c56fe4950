"""MANIFEST.json: the SHA-256 of every file of a release, signed. One byte, one file more or one less, and it does not verify."""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.deployment.minisign import SUFFIX, PublicKey, sign, verify
from common.errors import FedMRIError
from common.files import write_atomic

MANIFEST = "MANIFEST.json"
FORMAT = "fedmri-release-1"
OWN = (MANIFEST, MANIFEST + SUFFIX)


def write_manifest(folder: Path, private: Ed25519PrivateKey | None, comment: str) -> None:
    """List every file of the folder, and sign the list.

    Args:
        folder: of the release.
        private: None: the list is left unsigned.
        comment: signed with it.
    """
    files = {name: _sha256(folder / name) for name in _files(folder)}
    table = {"format": FORMAT, "files": files}
    write_atomic(folder / MANIFEST, (json.dumps(table, indent=2, sort_keys=True) + "\n").encode())
    if private:
        sign(folder / MANIFEST, private, comment)


def verify_release(folder: Path, public: PublicKey) -> tuple[int, str]:
    """Check a release against its signed manifest.

    Returns:
        How many files it has, and the signer's comment.

    Raises:
        FedMRIError: names the file that was changed, is missing or does not belong there, or says that the signature is wrong.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise FedMRIError(f"{folder}: no {MANIFEST} ({error.strerror}). Name the folder of a release.") from error
    comment = verify(folder / MANIFEST, content, public)
    listed = _read(content)
    found = _files(folder)
    for name, sha256 in listed.items():
        if name not in found:
            raise FedMRIError(f"{name}: missing. Do not use this release; take it anew from its maker.")
        if _sha256(folder / name) != sha256:
            raise FedMRIError(f"{name}: changed since it was signed. Do not use this release; take it anew from its maker.")
    extra = sorted(set(found) - listed.keys())
    if extra:
        raise FedMRIError(f"{extra[0]}: not in the manifest. Remove it, or take the release anew from its maker.")
    return len(listed), comment


def _files(folder: Path) -> list[str]:
    """Relative names of all that is no folder, but the manifest and its signature.

    Raises:
        FedMRIError: a link, or something that is no file: what it shows may change.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise FedMRIError(f"{name}: expected a plain file. A release holds no links.")
        if path.is_file() and name not in OWN:
            names.append(name)
    return names


def _read(content: bytes) -> dict[str, str]:
    """The listed files of a manifest whose signature was right."""
    try:
        table = json.loads(content)
        files = table["files"]
        good = table["format"] == FORMAT and all(_plain(n) and re.fullmatch("[0-9a-f]{64}", s) for n, s in files.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise FedMRIError(f"{MANIFEST}: expected the list of a release ({FORMAT}). It was made by another version of FedMRI?")
    return dict(files)


def _plain(name: str) -> bool:
    """Whether a name stays inside the folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
