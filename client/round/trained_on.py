"""Which patients a run trains on: the site's own record, and one keyed hash over their data.

HOME/trained/RUN.json      by patient: a keyed hash of their files, label and covariates, and the first and last round with it
KEYS/data-hash.key         beside the site's key; made here, never leaves

The hash over all of them stands in the audit log; it leaves where `policy.share_data_hash` says so. Whoever has not the key
learns from it whether two rounds trained on the same data, and nothing else.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from client.round.site_context import SiteContext, home_folder
from common.config.site import read_site_config
from common.data.dataset import SiteData
from common.errors import FederationError
from common.files import write_atomic, write_secret
from common.messages.round import Task

FOLDER, KEY_NAME = "trained", "data-hash.key"
logger = logging.getLogger("fedmri.client")


@dataclass(frozen=True)
class Used:
    """A patient in a run.

    Attributes:
        patient: the site's own id.
        data: keyed hash of their files, label and covariates in the last of the rounds.
        first, last: rounds.
        others: how many other contents they had before, in the same run.
    """

    patient: str
    data: str
    first: int
    last: int
    others: int = 0


def note_trained(context: SiteContext, task: Task, patients: SiteData) -> str:
    """Write down who is about to train; returns the keyed hash over their data. Virtual sites keep no record, and have none.

    Raises:
        FederationError: the record or the key cannot be read or written: nothing is trained then.
    """
    if context.simulated:
        return ""
    home = home_folder(context)
    try:
        key = data_key(home / Path(read_site_config(context.folder).connection.key).expanduser().parent)
        now = {patient: _hash(key, _facts(patients, row)) for row, patient in enumerate(patients.ids)}
        before = {used.patient: used for used in read_trained(home, task.run)}
        _say_changes(context.name, before, now, task.round)
        merged = before | {patient: _used(before.get(patient), patient, data, task.round) for patient, data in now.items()}
        table = {"run": task.run, "patients": [vars(merged[patient]) for patient in sorted(merged)]}
        write_atomic(_path(home, task.run), json.dumps(table, indent=1).encode())
        os.chmod(_path(home, task.run), 0o600)
    except OSError as error:
        raise FederationError(
            f"{home / FOLDER}: the record of who trains cannot be kept ({error}). Nothing was trained."
        ) from error
    return _hash(key, json.dumps(sorted(now.items())))


def read_trained(home: Path, run: str) -> list[Used]:
    """Who trained in a run; nobody where it is not known.

    Raises:
        FederationError: the record is damaged.
    """
    return _read(_path(home, run))[1] if _path(home, run).is_file() else []


def runs_with(home: Path, patient: str) -> dict[str, Used]:
    """The runs that used a patient, by what the coordinator calls them.

    Raises:
        FederationError: a record is damaged.
    """
    found = (_read(path) for path in sorted((home / FOLDER).glob("*.json")))
    return {run: used for run, all_of_it in found for used in all_of_it if used.patient == patient}


def data_key(keys: Path) -> bytes:
    """The site's key for hashes of its data, made where it is absent."""
    path = keys / KEY_NAME
    if not path.is_file():
        keys.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was first
            write_secret(path, secrets.token_hex(32).encode())
    return path.read_bytes()


def keyed_name(key: bytes, patient: str) -> str:
    """A patient as the audit log calls them."""
    return _hash(key, f"patient {patient}")


def _facts(patients: SiteData, row: int) -> str:
    source = patients.sources[row] if patients.sources else patients.key
    return json.dumps([patients.ids[row], source, int(patients.labels[row]), [str(v) for v in patients.covariates[row]]])


def _used(before: Used | None, patient: str, data: str, number: int) -> Used:
    if before is None:
        return Used(patient, data, number, number)
    changed = before.data != data
    return Used(patient, data, min(before.first, number), max(before.last, number), before.others + changed)


def _say_changes(site: str, before: dict[str, Used], now: dict[str, str], number: int) -> None:
    """In the site's own log, by name."""
    if not before:
        return
    changed = sorted(patient for patient, data in now.items() if patient in before and before[patient].data != data)
    came = sorted(now.keys() - before.keys())
    left = sorted(patient for patient, used in before.items() if patient not in now and used.last >= number - 1)
    for words, names in (("have other files, labels or covariates", changed), ("came", came), ("are gone", left)):
        if names:
            logger.warning("Site %s, round %d: since the run's last round %s %s.", site, number, ", ".join(names), words)


def _read(path: Path) -> tuple[str, list[Used]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return str(table["run"]), [Used(**each) for each in table["patients"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FederationError(f"{path}: cannot be read ({error}). Move it away, and keep it: it says who trained.") from error


def _hash(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _path(home: Path, run: str) -> Path:
    """What the coordinator calls a run is no path."""
    return home / FOLDER / f"{hashlib.sha256(run.encode()).hexdigest()[:16]}.json"
