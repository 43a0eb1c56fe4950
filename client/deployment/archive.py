"""A site's own files in one archive: key, settings, ledger, audit log and records belong together, and come back together or not.

What is in it: site.toml, the authority, the keys' folder with the ledger's salt, the privacy ledger and its patients'
fingerprints, bundles.txt, the key that verifies released models, the audit log, the gate's memory of secure rounds, the records
`twins/`, `trained/`, `survey/`, and of each run the newest of the site's own arrays (`personal/`).
Never a patient's file, weights, models, logs of programs or what can be made anew. It holds the private key: whoever has the
archive is this site.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from client.deployment.home import SiteHome, open_home
from client.gate import audit_log
from client.gate.ledger_watch import require_known
from client.gate.replay_guard import alone
from client.privacy.ledger import alone as alone_with_ledger
from client.privacy.ledger import read_ledger
from client.privacy.likeness import images_path, read_images
from common.deployment.minisign import PUBLIC
from common.deployment.supervisor import running
from common.errors import ConfigError, FederationError
from common.files import sync_folder, write_atomic, write_secret

MANIFEST, MOVED_NAME = "manifest.json", "moved.json"
RECORDS = ("twins", "trained", "survey")
MOVED, RESTORED = "moved", "restored"  # events of the audit log
LARGEST = 2**31  # bytes of an archive that is opened


@dataclass(frozen=True)
class Archived:
    """What an archive says of itself.

    Attributes:
        site: its name.
        made: when; ISO 8601, UTC.
        charges: of the ledger.
        lines: of the audit log.
        head: hash of the log's last line.
    """

    site: str
    made: str
    charges: int
    lines: int
    head: str


def backup(home: SiteHome, file: Path, *, move: bool = False) -> Archived:
    """Write the archive; nothing of the site works meanwhile.

    Args:
        home: the site's.
        file: of the archive; there must be none yet.
        move: the site goes on elsewhere: this folder does not start any more.

    Raises:
        ConfigError: the file is there, or a file of the site lies outside its folder.
        FederationError: the site runs, and is to be moved.
        AuditLogError, PrivacyError: log or ledger cannot be trusted, or they contradict each other.
    """
    if file.exists():
        raise ConfigError(f"{file} is there already; an archive is never overwritten. Name another file.")
    if move and running(home.state) is not None:
        raise FederationError(f"The site runs. Stop it first: fedmri-site stop {home.folder}")
    ledger_file, log = home.folder / home.config.privacy.ledger, home.state / audit_log.LOG_NAME
    with alone(home.state), alone_with_ledger(ledger_file):
        ledger = read_ledger(ledger_file, home.key.parent)
        require_known(log, ledger, ledger_file)
        read_images(ledger_file, ledger)
        if move:
            audit_log.record(log, MOVED)
        summary = audit_log.verify(log) if log.exists() else audit_log.AuditSummary(0, "", "", "", {}, 0)
        said = Archived(
            home.name, datetime.now(UTC).isoformat(timespec="seconds"), len(ledger.entries), summary.lines, summary.head
        )
        contents = {name: path.read_bytes() for name, path in _own_files(home)}
        write_secret(file, _packed(contents, said))
        if move:
            write_atomic(home.state / MOVED_NAME, json.dumps({"moved": said.made, "archive": str(file)}).encode())
    return said


def restore(file: Path, folder: Path, *, head: str = "") -> Archived:
    """Make a site's folder of an archive; it is there whole, or not at all.

    Args:
        file: the archive.
        folder: that is made; it must not be there, or be empty.
        head: a hash of the audit log that was noted elsewhere; "": none was.

    Raises:
        ConfigError: no such archive, a damaged one, or the folder is used.
        AuditLogError, PrivacyError: its log or ledger is not as it was written, the log knows charges that the ledger lacks, or
            the log ends before `head`: what was charged since would be forgotten.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is used already. Name a folder that is not there.")
    contents, said = _unpacked(file)
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for name, content in contents.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_secret(path, content)
        home = open_home(draft)
        log, ledger_file = home.state / audit_log.LOG_NAME, home.folder / home.config.privacy.ledger
        if said.lines:
            _require_head(log, said, head)
        elif head:
            raise ConfigError(f"{file}: its audit log is empty, and you noted a line {head[:12]}. Take a newer archive.")
        ledger = read_ledger(ledger_file, home.key.parent)
        require_known(log, ledger, ledger_file)
        read_images(ledger_file, ledger)
        home.logs.mkdir(parents=True, exist_ok=True)
        audit_log.record(log, RESTORED, made=said.made)
        if folder.exists():
            folder.rmdir()
        os.rename(draft, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return said


def require_here(home: SiteHome) -> None:
    """Refuse to start a site that was moved elsewhere: two of it would spend one budget twice.

    Raises:
        FederationError: it was.
    """
    path = home.state / MOVED_NAME
    if path.is_file():
        raise FederationError(
            f"This site was moved elsewhere (`fedmri-site move`; {path}), and two of it would spend one privacy budget twice. If "
            "the archive was never restored, and never will be, remove that file."
        )


def _require_head(log: Path, said: Archived, noted: str) -> None:
    """The log must be whole, end where the archive says, and hold the line that a person has noted."""
    summary = audit_log.verify(log)
    if (summary.lines, summary.head) != (said.lines, said.head):
        raise ConfigError(f"{log}: the archive names another end of its audit log. It is damaged; take another one.")
    if noted and f'"hash":"{noted}'.encode() not in log.read_bytes():
        raise ConfigError(
            f"The archive is older than the line {noted[:12]} of the audit log that you noted: charges since would be forgotten, "
            "and spent twice. Take the newest archive."
        )


def _own_files(home: SiteHome) -> Iterator[tuple[str, Path]]:
    """The files that are kept, by their place in the site's folder."""
    ledger = home.folder / home.config.privacy.ledger
    single = [home.toml, home.ca, ledger, images_path(ledger), home.folder / "bundles.txt", home.folder / PUBLIC]
    single += [home.state / audit_log.LOG_NAME, *sorted(home.state.glob("*.txt"))]
    several = [file for name in RECORDS for file in sorted((home.folder / name).glob("*.json"))]
    several += sorted((home.folder / "twins").glob("*.npz"))  # with whom newcomers are compared
    several += [kept[-1] for run in sorted((home.folder / "personal").glob("*")) if (kept := sorted(run.glob("*.safetensors")))]
    keys = (
        [file for file in sorted(home.key.parent.iterdir()) if file.is_file()] if home.key.parent != home.folder else [home.key]
    )
    for path in dict.fromkeys([*single, *keys, *several]):
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(home.folder.resolve()):
            raise ConfigError(
                f"{path} lies outside {home.folder}, and so is in no archive of it. Move it inside, or copy it by hand."
            )
        yield path.relative_to(home.folder).as_posix(), path


def _packed(contents: dict[str, bytes], said: Archived) -> bytes:
    memory = io.BytesIO()
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = json.dumps({**vars(said), "files": files}, indent=1).encode()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name, content in {MANIFEST: manifest, **contents}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return memory.getvalue()


def _unpacked(file: Path) -> tuple[dict[str, bytes], Archived]:
    """The files of an archive, each as it was when it was made."""
    try:
        if file.stat().st_size > LARGEST:
            raise ConfigError(f"{file}: far too large for the archive of a site.")
        with tarfile.open(file, mode="r:") as archive:
            members = {member.name: member for member in archive.getmembers() if member.isfile()}
            found = {name: content.read() for name, member in members.items() if (content := archive.extractfile(member))}
        table = json.loads(found.pop(MANIFEST))
        files = dict(table.pop("files"))
        said = Archived(**table)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}). Name an archive of `fedmri-site backup`.") from error
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: expected an archive of `fedmri-site backup`; it is none, or damaged ({error}).") from error
    whole = found.keys() == files.keys() and all(hashlib.sha256(found[name]).hexdigest() == files[name] for name in files)
    if not whole or any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files):
        raise ConfigError(f"{file}: its files are not those that it was made of. Take another archive.")
    return found, said
