"""Which code a process runs: server and sites must run the same, and a Flower SuperLink may hand them different checkouts."""

import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("common", "client", "server")


@cache
def code_hash() -> str:
    """SHA-256 of the code that this process runs: `tree_hash` of the folder that it imports FedMRI from."""
    return tree_hash(Path(__file__).resolve().parents[2])


def tree_hash(root: Path) -> str:
    """SHA-256 over names and bytes of the source files of common, client and server under `root`."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
