"""The hospital's privacy budget: what its patients have spent, and whether a round may be charged.

The site decides, by its own `site.toml` and its own ledger; whatever a coordinator plans, training that would exceed the budget
is refused here, before any patient's data are touched.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from client.privacy.ledger import Ledger, Marks, alone, append, read_ledger
from common.config.site import SitePrivacy
from common.data.cases import Site
from common.data.gate.files import companion
from common.errors import BUDGET_SPENT, DataError, PrivacyError
from common.privacy.accounting import epsilon_of, steps_within
from common.privacy.charge import Charge


@dataclass(frozen=True)
class Budget:
    """One site's budget and where it is kept.

    Attributes:
        limit: epsilon that no patient may exceed; 0: the hospital has set none, spending is recorded only.
        facts: of each patient, what tells them from others: their id and the hashes of their volumes. They stay at the site.
    """

    site: str
    limit: float
    delta: float
    path: Path
    facts: tuple[tuple[str, ...], ...]

    def spent(self, *more: Charge) -> float:
        """Epsilon of the patient who has spent most, with `more` on top."""
        return self._worst(read_ledger(self.path), more)

    def charge(self, charge: Charge, run: str) -> float:
        """Write a charge for all patients of the site, if the budget allows it; returns what is spent then.

        Raises:
            PrivacyError: it does not, or the ledger cannot be used.
        """
        with alone(self.path):
            ledger = read_ledger(self.path)
            after = self._worst(ledger, (charge,))
            if self.limit and not after <= self.limit:
                before = self._worst(ledger, ())
                raise PrivacyError(
                    f"Site {self.site}: {charge.steps} more private steps would take the patients from epsilon {before:.3f} to "
                    f"{after:.3f}, beyond the hospital's {self.limit:g} (delta {self.delta:g}). See `fedmri-site budget`.",
                    public=BUDGET_SPENT,
                )
            append(self.path, ledger, charge, self._cohort(ledger), run)
            return after

    def rounds_left(self, one: Charge) -> int | None:
        """How many more rounds of this cost fit; None where there is no limit."""
        if not self.limit:
            return None
        ledger = read_ledger(self.path)
        return min(
            (steps_within(self.limit, self.delta, one, history) for history in ledger.histories(self._cohort(ledger))), default=0
        )

    def _worst(self, ledger: Ledger, more: tuple[Charge, ...]) -> float:
        histories = ledger.histories(self._cohort(ledger))
        return max((epsilon_of((*history, *more), self.delta) for history in histories), default=epsilon_of(more, self.delta))

    def _cohort(self, ledger: Ledger) -> tuple[Marks, ...]:
        return tuple(ledger.mark(*facts) for facts in self.facts)


def require_open(site: str, privacy: SitePrivacy) -> None:
    """Refuse training without privacy where the hospital has set a budget: it would spend without any bound.

    Raises:
        PrivacyError: it has.
    """
    if privacy.epsilon:
        raise PrivacyError(
            f"Site {site}: site.toml sets a privacy budget (epsilon {privacy.epsilon:g}), but the run trains without privacy. "
            "Ask for a run with privacy.enabled = true, or take [privacy] epsilon out of site.toml.",
            public="the site trains with differential privacy only",
        )


def site_budget(site: Site, path: Path) -> Budget:
    """The budget of a hospital, whose ledger lies beside its site.toml.

    Args:
        site: whose patients may spend it.
        path: of site.toml, or of the folder that holds it.
    """
    folder = path.parent if path.suffix == ".toml" else path
    return open_budget(site, site.config.privacy, folder / site.config.privacy.ledger)


def open_budget(site: Site, privacy: SitePrivacy, path: Path) -> Budget:
    """The budget of a site's present patients.

    Args:
        site: whose patients may spend it; all their volumes are read for their hashes.
        privacy: the site's epsilon and delta for one patient.
        path: of the ledger.

    Raises:
        DataError: a volume that cannot be read.
    """
    facts = tuple((f"id:{case.id}", *(f"volume:{_digest(file)}" for file in case.files.values())) for case in site.cases)
    return Budget(site.name, privacy.epsilon, privacy.delta, path, facts)


def _digest(file: Path) -> str:
    """Of the voxels' half where the file is one of a pair: headers of different patients may be equal."""
    other = companion(file)
    try:
        with (other if other and file.suffix == ".hdr" else file).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
