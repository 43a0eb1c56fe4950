"""Which bundles may run at this hospital: `bundles.txt` beside site.toml, one SHA-256 a line, written by `fedmri-site approve`.

A bundle that is not in it is kept as `state/refused/HASH.fab`, a zip archive to be read; nothing of it is unpacked or run.
"""

import hashlib
import re
import shutil
import tempfile
import tomllib
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from shlex import quote

from common.errors import ConfigError, PolicyError
from common.files import write_atomic
from common.text import printable

LIST_NAME = "bundles.txt"
KEPT = 5  # refused bundles
MAX_BYTES = 20_000_000  # of one; Flower's own limit is 10 MiB
HEADER = "# SHA-256 of the bundles that may run here, with date and note: see `fedmri-site approve`. Remove a line to withdraw.\n"


@dataclass(frozen=True)
class Comparison:
    """A bundle's files beside those of the FedMRI that is installed here."""

    same: tuple[str, ...]
    different: tuple[str, ...]
    new: tuple[str, ...]


def approved(home: Path) -> dict[str, str]:
    """The approved hashes and what stands behind each.

    Raises:
        ConfigError: a line that begins with no hash.
    """
    path = home / LIST_NAME
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        sha256, _, note = text.partition(" ")
        found[check_hash(sha256, f"{path}, line {number}")] = note.strip()
    return found


def approve(home: Path, sha256: str, note: str = "") -> bool:
    """Let a bundle run; returns False where it was approved before."""
    check_hash(sha256, "approve")
    if sha256 in approved(home):
        return False
    path = home / LIST_NAME
    before = path.read_text(encoding="utf-8") if path.is_file() else HEADER
    line = f"{sha256}  {datetime.now(UTC):%Y-%m-%d}  {printable(note, 200)}".rstrip()
    write_atomic(path, (before.rstrip("\n") + f"\n{line}\n").encode())
    return True


def withdraw(home: Path, sha256: str) -> bool:
    """Let a bundle run no more; returns False where it was not approved."""
    check_hash(sha256, "withdraw")
    if sha256 not in approved(home):
        return False
    path = home / LIST_NAME
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.strip().startswith(sha256)]
    write_atomic(path, ("\n".join(kept) + "\n").encode())
    return True


def require_approved(home: Path, state: Path, bundle: bytes) -> str:
    """SHA-256 of a bundle that may run.

    Raises:
        PolicyError: it may not; it is kept under `state`/refused to be read.
    """
    sha256 = hashlib.sha256(bundle).hexdigest()
    if sha256 in approved(home):
        return sha256
    kept = keep_refused(state, sha256, bundle)
    raise PolicyError(
        f"Bundle {sha256} is not approved at this site. Read {kept} (a zip archive), then: "
        f"fedmri-site approve {quote(str(home))} {sha256}",
        public=f"the site has not approved the bundle {sha256[:12]}",
        rule="policy.approval",
    )


def keep_refused(state: Path, sha256: str, bundle: bytes) -> Path:
    """Keep a refused bundle for a person to read: the newest few, none that is huge."""
    path = state / "refused" / f"{sha256}.fab"
    with suppress(OSError):  # a full disk does not make a refusal an acceptance
        if not path.is_file() and len(bundle) <= MAX_BYTES:
            write_atomic(path, bundle)
        for old in sorted(path.parent.glob("*.fab"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return path


def unpack(bundle: bytes, folder: Path) -> None:
    """Unpack an approved bundle, whole or not at all.

    Args:
        bundle: a zip archive.
        folder: made; left alone where it is there.

    Raises:
        PolicyError: no zip archive, or a name in it that leads out of it.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        with zipfile.ZipFile(BytesIO(bundle)) as archive:
            names = archive.namelist()
            if any(name.startswith("/") or ".." in Path(name).parts for name in names):
                raise zipfile.BadZipFile("a name that leads out of the archive")
            if sum(info.file_size for info in archive.infolist()) > 10 * MAX_BYTES:
                raise zipfile.BadZipFile("too large when unpacked")
            archive.extractall(beside)
        beside.replace(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise PolicyError(f"The bundle is no usable archive ({error}).", rule="bundle") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def compare(bundle: bytes, installed: Path) -> Comparison:
    """A bundle's source files beside the installed ones, so that only what differs need be read.

    Args:
        bundle: a zip archive.
        installed: folder that holds common/, client/, server/ and configs/.
    """
    same, different, new = [], [], []
    with zipfile.ZipFile(BytesIO(bundle)) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(".info/") or name.endswith("/"):
                continue
            here = installed / name
            if not here.is_file():
                new.append(name)
            elif _same(name, here.read_bytes(), archive.read(name)):
                same.append(name)
            else:
                different.append(name)
    return Comparison(tuple(same), tuple(different), tuple(new))


def _same(name: str, here: bytes, bundled: bytes) -> bool:
    """Whether a file says the same in both places: Flower writes pyproject.toml anew, a list over several lines."""
    if here == bundled or name != "pyproject.toml":
        return here == bundled
    try:
        return tomllib.loads(here.decode()) == tomllib.loads(bundled.decode())
    except ValueError:
        return False


def check_hash(text: str, where: str) -> str:
    """Return a SHA-256 unchanged.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ConfigError(f"{where}: expected the 64 hexadecimal digits of a bundle's SHA-256, got {text[:80]!r}.")
    return text
