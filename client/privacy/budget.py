"""The hospital's privacy budget: what its patients have spent, and whether a round may be charged.

The site decides, by its own `site.toml` and its own ledger; whatever a coordinator plans, training that would exceed the budget
is refused here, before any patient's data are touched.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from client.privacy.ledger import Ledger, Seen, alone, append, read_ledger
from client.privacy.likeness import images_of, linked, read_images, write_images
from client.privacy.marks import patient_facts
from client.privacy.people import Marks
from common.config.site import SitePrivacy
from common.data.cache import default_cache
from common.data.cases import Site
from common.data.fingerprint import Fingerprint
from common.data.twins import patient_fingerprint
from common.errors import BUDGET_SPENT, PrivacyError
from common.privacy.accounting import epsilon_of, steps_within
from common.privacy.charge import Charge


@dataclass(frozen=True)
class Budget:
    """One site's budget and where it is kept.

    Attributes:
        limit: epsilon that no patient may exceed; 0: the hospital has set none, spending is recorded only.
        facts: of each patient, what tells them from others: their id and the marks of their volumes. They stay at the site.
        images: of each patient, the fingerprint of their volumes, by which they are known in another form; None: nobody is.
        keys: folder of the ledger's salt; None: `keys` beside the ledger.
        same_patient: "refuse" a charge where two patients of the site are one person, or "charge" the group's bound.
    """

    site: str
    limit: float
    delta: float
    path: Path
    facts: tuple[tuple[str, ...], ...]
    keys: Path | None = None
    same_patient: str = "refuse"
    images: tuple[Fingerprint, ...] | None = None

    def spent(self, *more: Charge) -> float:
        """Epsilon of the patient who has spent most, with `more` on top."""
        ledger = self._read()
        return self._worst(ledger, self._cohort(ledger), more)

    def charge(self, charge: Charge, run: str) -> float:
        """Write a charge for all patients of the site, if the budget allows it; returns what is spent then.

        Raises:
            PrivacyError: it does not, or the ledger cannot be used.
        """
        with alone(self.path):
            ledger = self._read()
            cohort = self._cohort(ledger)  # once: all fingerprints are hashed for it
            self._require_persons(ledger, cohort)
            after = self._worst(ledger, cohort, (charge,))
            if self.limit and not after <= self.limit:
                before = self._worst(ledger, cohort, ())
                raise PrivacyError(
                    f"Site {self.site}: {charge.steps} more private steps would take the patients from epsilon {before:.3f} to "
                    f"{after:.3f}, beyond the hospital's {self.limit:g} (delta {self.delta:g}). See `fedmri-site budget`.",
                    public=BUDGET_SPENT,
                    rule="privacy.epsilon",
                )
            append(self.path, ledger, charge, cohort, run, self.keys, self._keep_images(ledger))
            return after

    def rounds_left(self, one: Charge) -> int | None:
        """How many more rounds of this cost fit; None where there is no limit."""
        if not self.limit:
            return None
        ledger = self._read()
        after = ledger.histories(self._cohort(ledger), (one,))
        return min((steps_within(self.limit, self.delta, history[-1], history[:-1]) for history in after), default=0)

    def run_epsilon(self, run: str, delta: float) -> float:
        """Epsilon of all that this run has charged here: it follows from how often the site was asked, and from nothing else."""
        return epsilon_of_run(self._read(), run, delta)

    def twins(self) -> tuple[tuple[str, ...], ...]:
        """Ids of the site's patients who are one person, as far as their volumes or the ledger tell; each group once."""
        ledger = self._read()
        return self._twins(ledger, self._cohort(ledger))

    def _twins(self, ledger: Ledger, cohort: tuple[Marks, ...]) -> tuple[tuple[str, ...], ...]:
        people, groups = ledger.people(cohort), defaultdict[str, list[str]](list)
        for facts, marks in zip(self.facts, cohort, strict=True):
            groups[people.person(marks)].append(facts[0].removeprefix("id:"))
        return tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)

    def _require_persons(self, ledger: Ledger, cohort: tuple[Marks, ...]) -> None:
        """Refuse two patients who are one person, where the hospital has a budget and says nothing else."""
        if not self.limit or self.same_patient != "refuse":
            return
        if twins := self._twins(ledger, cohort):
            shown = "; ".join(" and ".join(ids) for ids in twins[:5])
            raise PrivacyError(
                f"Site {self.site}: {shown}: one person, by the same volumes now or by the ledger. A step would move twice for "
                'them. Take one out (exclude in site.toml), or set same_patient = "charge" under [privacy]: all are then charged '
                "as a group, which costs far more.",
                rule="privacy.same_patient",
            )

    def _read(self) -> Ledger:
        return read_ledger(self.path, self.keys)

    def _worst(self, ledger: Ledger, cohort: tuple[Marks, ...], more: tuple[Charge, ...]) -> float:
        histories = ledger.histories(cohort, more) or {more: 0}
        return max(epsilon_of(history, self.delta) for history in histories)

    def likenesses(self) -> tuple[str, ...]:
        """Ids of the site's patients who are known from an earlier charge by the likeness of their images alone."""
        ledger = self._read()
        own = self._plain(ledger)
        plain = ledger.people(own)
        charged = {plain.person(marks) for entry in ledger.entries for marks in entry.cohort}
        near = ledger.people(self._cohort(ledger))
        known = {near.person(marks) for entry in ledger.entries for marks in entry.cohort}
        return tuple(
            facts[0].removeprefix("id:")
            for facts, marks in zip(self.facts, own, strict=True)
            if plain.person(marks) not in charged and near.person(marks) in known
        )

    def _plain(self, ledger: Ledger) -> tuple[Marks, ...]:
        return tuple(ledger.mark(*facts) for facts in self.facts)

    def _cohort(self, ledger: Ledger) -> tuple[Marks, ...]:
        before, cohort = read_images(self.path, ledger), self._plain(ledger)
        return cohort if self.images is None else linked(cohort, self.images, ledger, before)

    def _keep_images(self, ledger: Ledger) -> Seen | None:
        """Keep the present patients' fingerprints with those of earlier ones; None where nobody has any."""
        before = read_images(self.path, ledger)
        known = before.with_new(images_of(self.images or (), ledger))
        if len(known.marks) > len(before.marks):
            write_images(self.path, known)
        return known.seen() if known.marks else None


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
            rule="privacy.epsilon",
        )


def epsilon_of_run(ledger: Ledger, run: str, delta: float) -> float:
    """Epsilon of what a run has charged, for a patient who was in all of it."""
    return epsilon_of([entry.charge for entry in ledger.entries if entry.run == run], delta)


def site_budget(site: Site, path: Path) -> Budget:
    """The budget of a hospital, whose ledger lies beside its site.toml.

    Args:
        site: whose patients may spend it.
        path: of site.toml, or of the folder that holds it.
    """
    folder = path.parent if path.suffix == ".toml" else path
    keys = folder / Path(site.config.connection.key).expanduser().parent
    return open_budget(site, site.config.privacy, folder / site.config.privacy.ledger, default_cache(), keys)


def open_budget(site: Site, privacy: SitePrivacy, path: Path, cache: Path, keys: Path | None = None) -> Budget:
    """The budget of a site's present patients.

    Args:
        site: whose patients may spend it; all their volumes are read for their marks, unless `cache` knows them.
        privacy: the site's epsilon and delta for one patient.
        path: of the ledger.
        cache: folder of the volumes' marks.
        keys: folder of the ledger's salt; None: `keys` beside the ledger.

    Raises:
        DataError: a volume that cannot be read.
    """
    facts = tuple(patient_facts(case, cache) for case in site.cases)
    images = tuple(patient_fingerprint(case, cache) for case in site.cases)
    return Budget(site.name, privacy.epsilon, privacy.delta, path, facts, keys, privacy.same_patient, images)
