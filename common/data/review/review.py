"""Reviews a site, patient by patient: what lies in names and headers, and what images show that no rule about one file sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib

from common.data.cases import Case, Site
from common.data.gate.finding import Finding, Kind
from common.data.gate.patient import Patient
from common.data.gate.tables import read_table
from common.data.review import identifiers, skull, swapped, twice
from common.data.review.look import look
from common.data.review.thumbnail import Thumbnail, thumbnail
from common.errors import DataError

KINDS: tuple[Kind, ...] = (*identifiers.KINDS, *skull.KINDS, *swapped.KINDS, *twice.KINDS)


@dataclass
class Review:
    """Remembers of each volume its fingerprint, and nothing else.

    Attributes:
        quick: leave out what takes longest, all that images show.
    """

    quick: bool = False
    volumes: twice.Volumes = field(default_factory=twice.Volumes)

    def patient(self, case: Case, read: Patient | None) -> list[Finding]:
        """What can be said of one patient alone.

        Args:
            case: the patient's files.
            read: as the gate read them; None: they stay out, and only names and headers are looked at.
        """
        files = [(case.name_of(file), file) for _, file in case.sources()]
        findings = [*identifiers.name_findings(case.id, [name for name, _ in files])]
        for name, file in files:
            findings += identifiers.header_findings(case.id, name, _header(file))
        if read and not self.quick:
            for kind, volume in read.images.volumes.items():
                self.volumes.add(case.id, case.name_of(case.files[kind]), volume)
            if read.tumour and case.mask:
                findings += self.volumes.add_mask(case.id, case.name_of(case.mask), read.region)
            findings += [one.of(case.id) for one in _of_images(case, read)]
        return findings

    def finish(self) -> list[Finding]:
        """What can be said once all patients were seen."""
        return list(self.volumes.find_twice())


def table_findings(site: Site) -> list[Finding]:
    """What the columns of the site's table tell of its patients; nothing where it cannot be read, which is told elsewhere."""
    table = site.config.labels.table
    file = next((folder / table for folder in (site.root, site.root.parent) if (folder / table).is_file()), None)
    if file is None:
        return []
    try:
        rows = [dict(cells) for _, cells in read_table(file).rows]
    except DataError:
        return []
    return list(identifiers.column_findings(table, rows))


def _of_images(case: Case, read: Patient) -> Iterator[Finding]:
    one = thumbnail(read.volumes, read.region if read.tumour else None)
    if not one.shows_a_head:
        return
    yield from skull.find_faces(one)
    known = {name: slices for name, slices in one.slices.items() if name in swapped.NAMES}
    if known:
        seen = look(Thumbnail(known, one.tumour, one.pixel, one.depth))
        for name, finding in (*swapped.find_swapped(seen), *twice.find_alike(seen)):
            yield finding.of("", case.name_of(case.files[name]))


def _header(file: Path) -> Any:
    """The header alone, which is at the file's beginning; None where the file is not what its name says: the gate tells that."""
    try:
        return nib.load(file).header
    except Exception:  # a damaged header can fail anywhere inside nibabel
        return None
