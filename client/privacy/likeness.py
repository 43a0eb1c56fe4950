"""Whose images were charged before in another form: the fingerprints of all patients ever charged, kept beside the ledger.

PRIVACY-LEDGER.images.npz   mark of each patient's images, and their tokens under a key made of the ledger's salt; mode 0600

A volume that was resampled, cropped or stripped of its skull has other marks (`client.privacy.marks`), but nearly the same tokens
(`common.data.fingerprint`). Whoever is near to somebody charged before is taken for that patient: if this is wrong the ledger
says more than is true, and never less. Rows are only ever added; each charge in the ledger names how many there were and their
hash, so that a file that was lost or exchanged is noticed.

N patients now, K charged before.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from client.privacy.ledger import Ledger, Seen, alone, append
from client.privacy.people import Marks
from common.data.fingerprint import Fingerprint
from common.data.twins import find_twins
from common.errors import PrivacyError
from common.files import write_atomic
from common.privacy.charge import Charge
from common.secure.sealed_tokens import keyed


@dataclass(frozen=True, eq=False)
class Images:
    """Fingerprints under the ledger's key.

    Attributes:
        marks: [K], one of each patient's images; equal images have equal marks.
        tokens: [K].
    """

    marks: tuple[str, ...] = ()
    tokens: tuple[Fingerprint, ...] = ()

    def with_new(self, other: "Images") -> "Images":
        """These, and behind them those of `other` that are not among them."""
        new = {mark: row for row, mark in enumerate(other.marks) if mark not in self.marks}
        return Images((*self.marks, *new), (*self.tokens, *(other.tokens[row] for row in new.values())))

    def seen(self) -> Seen:
        """By which a charge names them."""
        return Seen(len(self.marks), hashlib.sha256("".join(self.marks).encode()).hexdigest())

    def first(self, count: int) -> "Images":
        """The first rows."""
        return Images(self.marks[:count], self.tokens[:count])


def images_path(ledger: Path) -> Path:
    """Where the fingerprints of a ledger's patients lie."""
    return ledger.with_name(f"{ledger.stem}.images.npz")


def images_of(fingerprints: Sequence[Fingerprint], ledger: Ledger) -> Images:
    """The present patients' fingerprints under the ledger's key; patients whose images show nothing have none."""
    shown = [tokens for tokens in fingerprints if tokens.size]
    return Images(tuple(image_mark(tokens, ledger) for tokens in shown), tuple(keyed(t, ledger.salt.encode()) for t in shown))


def image_mark(tokens: Fingerprint, ledger: Ledger) -> str:
    """The mark of a patient's images."""
    (mark,) = ledger.mark(f"images:{hashlib.sha256(tokens.astype('<u8').tobytes()).hexdigest()}")
    return mark


def linked(cohort: tuple[Marks, ...], fingerprints: Sequence[Fingerprint], ledger: Ledger, before: Images) -> tuple[Marks, ...]:
    """The patients' marks, and with them those of everybody whose images are near to theirs.

    Args:
        cohort: [N], by ids and voxels.
        fingerprints: [N].
        ledger: whose salt is the key.
        before: of everybody charged before.
    """
    present = images_of(fingerprints, ledger)
    known, more = present.with_new(before), [set[str]() for _ in present.marks]
    for twin in find_twins(present.tokens, known.tokens):
        more[twin.first].add(known.marks[twin.second])
    near = dict(zip(present.marks, more, strict=True))
    return tuple(
        marks | {mark, *near[mark]} if tokens.size and (mark := image_mark(tokens, ledger)) else marks
        for marks, tokens in zip(cohort, fingerprints, strict=True)
    )


def read_images(ledger_file: Path, ledger: Ledger) -> Images:
    """The fingerprints of everybody charged before; nobody where the ledger names none.

    Raises:
        PrivacyError: the file is missing, damaged, or not the one that the ledger names.
    """
    path, seen = images_path(ledger_file), ledger.seen
    try:
        with np.load(path, allow_pickle=False) as kept:
            ends = np.cumsum(kept["sizes"])
            tokens = np.split(kept["tokens"].astype(np.uint64), ends[:-1]) if ends.size else []
            found = Images(tuple(map(str, kept["marks"].tolist())), tuple(tokens))
    except FileNotFoundError:
        found = Images()
    except Exception as error:  # a damaged archive raises many kinds: of zipfile, zlib and numpy
        raise _not_these(path, f"cannot be read ({error})") from error
    if found.first(seen.count).seen() != seen:
        raise _not_these(path, "is missing or is not the one that the ledger names")
    return found


def write_images(ledger_file: Path, images: Images) -> None:
    """Keep them; call it before the charge that names them, so that a crash between the two loses nobody.

    Raises:
        PrivacyError: the file cannot be written: nothing may then be trained.
    """
    path, content = images_path(ledger_file), BytesIO()
    sizes = np.array([one.size for one in images.tokens], np.int64)
    tokens = np.concatenate([np.empty(0, np.uint64), *images.tokens])
    np.savez(content, marks=np.array(images.marks, dtype="U32"), sizes=sizes, tokens=tokens)
    try:
        write_atomic(path, content.getvalue())
        os.chmod(path, 0o600)
    except OSError as error:
        raise PrivacyError(f"{path}: cannot be written ({error}). Nothing was trained.") from error


def go_on_without(ledger_file: Path, ledger: Ledger, keys: Path) -> Ledger | None:
    """A person's decision to go on without fingerprints that were lost.

    A charge of no steps names none from here on; a damaged file is put aside.

    Returns:
        The ledger afterwards; None where nothing was lost.
    """
    path = images_path(ledger_file)
    with alone(ledger_file):
        try:
            read_images(ledger_file, ledger)
        except PrivacyError:
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.put-aside"))
            return append(ledger_file, ledger, Charge(0.0, 0.0, 0), (), "", keys, Seen())
    return None


def _not_these(path: Path, state: str) -> PrivacyError:
    return PrivacyError(
        f"Fingerprints of the privacy ledger's patients {path}: the file {state}. Restore it from the ledger's backup. If it "
        "is lost: `fedmri-site ledger accept SITE --reason TEXT` goes on without it, and a patient charged before whose images "
        "come back in another form under another name is not known again."
    )
