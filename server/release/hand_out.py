"""Packs a finished run's model for the hospitals that took part: adapters and head, calibration, card, and a signed manifest.

The frozen backbone is not in it: each hospital has it already, under its hash.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.deployment.minisign import sign
from common.errors import ConfigError, FedMRIError
from common.files import sync_folder, write_atomic
from common.messages.released_model import (
    CARD,
    CONTENT,
    MANIFEST,
    MAX_BYTES,
    NAME,
    SITES,
    Manifest,
    read_manifest,
    write_manifest,
)
from common.model_files.open import read_saved
from server.release.card import model_card
from server.release.run_name import run_name
from server.report.report import decode, read_report

FOLDER = "hand-out"


def pack(run: Path, study: str | None, version: str, private: Ed25519PrivateKey) -> Path:
    """Make RUN/hand-out/VERSION; one that is there already is handed out again as it is.

    Args:
        run: folder of a finished run.
        study: what hospitals call the model; with the version its whole name. None: as it was packed, else the folder's name.
        version: of it.
        private: key that signs.

    Raises:
        ConfigError: the run has not finished, a name that cannot be one, or the version was packed under another.
        FedMRIError: its files have more bytes than are handed out.
    """
    named, study = study is not None, run.name if study is None else study
    for name in (study, version):
        if not re.fullmatch(NAME, name):
            raise ConfigError(f"{name!r}: expected 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit.")
    folder = run / FOLDER / version
    if folder.is_dir():
        packed = packed_name(folder)
        if named and packed != f"{study}/{version}":
            raise ConfigError(f"{folder} is {packed} already, and stays so. For --study {study} give another --release.")
        return folder
    report, saved = read_report(run), read_saved(run)
    files = {name: (run / name).read_bytes() for name in CONTENT if (run / name).is_file()}
    card = model_card(
        decode(report), saved.config, saved.metadata["backbone_sha256"], "beside the backbone, not merged", [], run_name(run)
    )
    files[CARD] = card.encode()
    if (size := sum(map(len, files.values()))) > MAX_BYTES:
        raise FedMRIError(
            f"{run}: model, calibration and card have {size / 1e6:.0f} MB, at most {MAX_BYTES // 10**6} are handed out. "
            "Make a release with `fedmri-server export`, and send it by file."
        )
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = Manifest(study, version, datetime.now(UTC).isoformat(timespec="seconds"), hashes)
    files[MANIFEST] = write_manifest(manifest)
    files[SITES] = json.dumps(_took_part(run)).encode()
    draft = folder.parent / f".{version}.{uuid.uuid4().hex}"
    try:
        for name, content in files.items():
            write_atomic(draft / name, content)
        sign(draft / MANIFEST, private, f"fedmri model {study}/{version}")
        os.rename(draft, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def packed_name(folder: Path) -> str:
    """STUDY/VERSION of what was packed.

    Raises:
        FederationError: its manifest is none.
    """
    manifest = read_manifest((folder / MANIFEST).read_bytes())
    return f"{manifest.study}/{manifest.version}"


def _took_part(run: Path) -> list[str]:
    """Names of all hospitals of which an update went into the model."""
    rounds: list[dict[str, Any]] = [json.loads(line) for line in (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted({site for line in rounds for site in line["sites"]})
