"""Released models that came to this hospital: FOLDER/models/STUDY/VERSION, each with its manifest and its signature.

A model is taken by the gate only where FOLDER/release.pub verifies it, and verified again whenever it is used.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.deployment.minisign import PUBLIC, PublicKey, check_signature, read_public
from common.errors import ConfigError, FederationError, FedMRIError
from common.files import sync_folder
from common.messages.released_model import CONTENT, LATEST, MANIFEST, SIGNATURE, Manifest, read_manifest, require_files

FOLDER_NAME = "models"
SIGNATURE_RULE = "signature"  # the audit log's word for a model that the key does not verify


@dataclass(frozen=True)
class KeptModel:
    """One released model.

    Attributes:
        name: STUDY/VERSION.
        released: when it was signed, ISO 8601; "": the manifest cannot be read.
        folder: where its files are.
        trouble: why it may not be used; "": signature and hashes fit.
    """

    name: str
    released: str
    folder: Path
    trouble: str = ""


def keep_model(home: Path, files: Mapping[str, bytes]) -> KeptModel:
    """Verify what came, and keep it; twice the same does no harm.

    Args:
        home: the site's folder, which holds release.pub.
        files: manifest, signature, and what the manifest lists.

    Raises:
        FederationError: no key is known here, the signature or a hash does not fit, or another model has this name here.
    """
    manifest = verified(files, _key(home))
    folder = home / FOLDER_NAME / manifest.study / manifest.version
    if folder.is_dir():
        if (folder / MANIFEST).read_bytes() == files[MANIFEST]:
            return _kept(home, folder)
        text = "another model of this name is kept at the site"
        raise FederationError(f"{folder} holds another model of this name.", public=text, rule=SIGNATURE_RULE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        for name, content in files.items():
            (beside / name).write_bytes(content)
        beside.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _kept(home, folder)


def verified(files: Mapping[str, bytes], key: PublicKey) -> Manifest:
    """The manifest of files that are as they were signed.

    Raises:
        FederationError: they are not; names the file.
    """
    try:
        signature = files[SIGNATURE].decode("utf-8", "replace")
        check_signature(MANIFEST, files[MANIFEST], signature, key)
        manifest = read_manifest(files[MANIFEST])
        require_files(manifest, files)
    except FedMRIError as error:
        text = "the released model is not signed by the key that the site knows, or was changed"
        raise FederationError(f"{error} Nothing was kept.", public=text, rule=SIGNATURE_RULE) from error
    return manifest


def kept_models(home: Path) -> list[KeptModel]:
    """All that are here, each verified, the newest first."""
    folders = [folder for folder in (home / FOLDER_NAME).glob("[!.]*/[!.]*") if folder.is_dir()]
    return sorted((_kept(home, folder) for folder in folders), key=lambda one: (one.released, one.name), reverse=True)


def find_model(home: Path, name: str) -> Path:
    """The folder of a model that was verified just now.

    Args:
        home: the site's folder.
        name: STUDY/VERSION, or STUDY/latest: the one that was signed last.

    Raises:
        ConfigError: there is none of this name.
        FederationError: it is not as it was signed.
    """
    study, _, version = name.partition("/")
    here = kept_models(home)
    found = [one for one in here if one.name.startswith(f"{study}/") and version in (LATEST, one.folder.name)]
    if not found:
        known = ", ".join(one.name for one in here) or "none"
        raise ConfigError(f"Model {name}: none of this name came to this hospital. In {home / FOLDER_NAME}: {known}.")
    if found[0].trouble:
        raise FederationError(f"Model {found[0].name} is not used: {found[0].trouble} Ask the coordinator to hand it out again.")
    return found[0].folder


def _kept(home: Path, folder: Path) -> KeptModel:
    name, released = f"{folder.parent.name}/{folder.name}", ""
    try:
        files = {part: (folder / part).read_bytes() for part in (MANIFEST, SIGNATURE, *CONTENT) if (folder / part).is_file()}
        released = read_manifest(files.get(MANIFEST, b"")).released
        manifest = verified({MANIFEST: b"", SIGNATURE: b"", **files}, _key(home))
        if (manifest.study, manifest.version) != (folder.parent.name, folder.name):
            raise FederationError(f"It was signed as {manifest.study}/{manifest.version}.")
    except (FedMRIError, OSError) as error:
        return KeptModel(name, released, folder, str(error).removesuffix(" Nothing was kept."))
    return KeptModel(name, released, folder)


def _key(home: Path) -> PublicKey:
    if not (home / PUBLIC).is_file():
        text = f"{home / PUBLIC}: no such file. Ask the coordinator for it: it verifies released models."
        raise FederationError(text, public="the site knows no key that verifies released models", rule=SIGNATURE_RULE)
    return read_public(home / PUBLIC)
