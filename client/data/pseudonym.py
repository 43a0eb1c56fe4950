"""Names for patients: a keyed hash (HMAC-SHA256) of the hospital's own, so that the same patient always gets the same new name.

The key and the table of names lie in the site's home, under `keys/`, readable by their owner alone. Who has neither cannot go
back, nor try out patient numbers.
"""

import csv
import hashlib
import hmac
import io
import os
import secrets
from pathlib import Path

from common.deployment.private_file import require_private
from common.errors import ConfigError, DataError
from common.files import remove_unfinished, write_secret

LENGTH = 12  # hexadecimal digits of a name: two of a million patients share one once in 500 sites


class Pseudonyms:
    """New names for patients.

    Args:
        home: the site's home; its `keys/pseudonym.key` is made where it is absent.
        make: a key where there is none; names of an earlier run need the key that made them.

    Raises:
        ConfigError: the key is damaged or not the one that made the table's names, or others may read it.
    """

    def __init__(self, home: Path, *, make: bool = True) -> None:
        self._folder, self._names = home / "keys", dict[str, str]()
        self._known, key = _read(self._folder / "patients.tsv"), self._folder / "pseudonym.key"
        if not os.path.lexists(key) and (self._known or not make):
            raise ConfigError(f"{key}: not there, and names were made by it. Restore the file, or name its home by --home.")
        self._key = _key(key)
        if any(self._name(patient) != name for name, patient in self._known.items()):
            raise ConfigError(
                f"{key}: is another key than the one by which {self._folder / 'patients.tsv'} was made. Restore that one; with "
                "another, patients get other names."
            )

    def name(self, patient: str) -> str:
        """`sub-` and a name of letters and digits, as BIDS wants it.

        Args:
            patient: the hospital's own number of the patient.
        """
        name = self._name(patient)
        self._names[name] = patient.strip()
        return name

    def _name(self, patient: str) -> str:
        return f"sub-{hmac.new(self._key, patient.strip().encode(), hashlib.sha256).hexdigest()[:LENGTH]}"

    def require_known(self, names: set[str]) -> None:
        """Refuse names that no earlier run under this home made.

        Raises:
            ConfigError: at least one.
        """
        strange = sorted(names - self._known.keys())
        if strange:
            raise ConfigError(
                f"{self._folder}: {len(strange)} of the plan's {len(names)} patients ({strange[0]}) were named by another key. "
                "Name the home that the plan was made with by --home, or have a new plan made."
            )

    def keep_table(self) -> Path:
        """Write who is who, beside the key; what earlier imports wrote stays in it.

        Raises:
            DataError: two patients got one name.
        """
        path = self._folder / "patients.tsv"
        remove_unfinished(path)
        known = dict(self._known)
        for name, patient in self._names.items():
            if known.setdefault(name, patient) != patient:
                raise DataError(f"{path}: two patients have the name {name}. Give one of them another number, and import again.")
        text = io.StringIO()
        rows = csv.writer(text, delimiter="\t", lineterminator="\n")
        rows.writerows([("participant_id", "patient_id"), *sorted(known.items())])
        write_secret(path, text.getvalue().encode(), replace=True)
        return path


def _key(path: Path) -> bytes:
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_secret(path, f"{secrets.token_hex(32)}\n".encode())
    try:
        require_private(path, "read the key of the patients' names")
        content = path.read_text(encoding="ascii")
        key = bytes.fromhex(content.strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: expected 64 hexadecimal digits. Restore the file; without it patients get other names."
        ) from error
    if len(key) != 32:
        raise ConfigError(f"{path}: expected 64 hexadecimal digits. Restore the file; without it patients get other names.")
    return key


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["participant_id"]: row["patient_id"] for row in csv.DictReader(file, delimiter="\t")}
