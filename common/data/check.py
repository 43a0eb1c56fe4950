"""Checks a site before it joins: reads every patient as training would, and lists what was found.

All of this stays at the site.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from common.config.modalities import looked_for, on_pictures
from common.config.run import RunConfig
from common.data.cases import Case, Site
from common.data.gate.finding import Finding, Level, StaysOutError, stay_out
from common.data.gate.patient import Patient, read_patient
from common.data.review.review import Review, table_findings

Watcher = Callable[[Case, Patient | None], None]  # is given each patient as they were read; None where they stay out


@dataclass(frozen=True)
class SiteCheck:
    """The result for a site: it can train where somebody is left who has no error."""

    site: str
    patients: int
    modalities: dict[str, int]  # patients that have it
    masks: int
    classes: dict[str, int]  # patients of each class, or with each finding, and `unlabelled`
    findings: tuple[Finding, ...]  # about the site, then patient by patient
    covariates: dict[str, int] = field(default_factory=dict)  # patients of whom it is known, of the run's covariates

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(one for one in self.findings if one.level is level)

    @property
    def levels(self) -> dict[str, int]:
        """How many findings of each level."""
        return _by_level(list(self.findings))

    @property
    def codes(self) -> dict[str, dict[str, int]]:
        """By code: findings of each level, and how many patients have one; the gravest codes first, then the most frequent."""
        by_code: dict[str, list[Finding]] = {}
        for one in self.findings:
            by_code.setdefault(one.code, []).append(one)
        order = list(Level)
        gravest = {code: min(order.index(one.level) for one in of) for code, of in by_code.items()}
        ranked = sorted(by_code.items(), key=lambda item: (gravest[item[0]], -len(item[1]), item[0]))
        return {code: {**_by_level(of), "patients": len({one.patient for one in of if one.patient})} for code, of in ranked}

    @property
    def used(self) -> int:
        """Patients who would be used."""
        return self.patients - len(stay_out(self.findings))

    @property
    def usable(self) -> bool:
        """Whether the site can train: anybody is left, and nothing is wrong with the site as a whole."""
        return self.used > 0 and not any(not one.patient for one in self.of(Level.ERROR))


def check_site(
    site: Site,
    run: RunConfig,
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Watcher | None = None,
) -> SiteCheck:
    """Read every volume and mask of a site, as training would.

    Args:
        site: as `read_site` found it.
        run: with which `site` was read.
        quick: leave out what only several images show: modalities mixed up, scans and people twice, faces. It knows heads, and
            of pictures it is always left out.
        progress: called with (patients done, of all).
        watch: is called with each patient in turn; what it does not keep is gone.
    """
    findings, review = [*site.findings, *table_findings(site)], Review(quick or on_pictures(run.data.modalities))
    out = stay_out(findings)  # by their names or rows: mended first, for else their images would be called bad for it
    for done, case in enumerate(site.cases, start=1):
        read, found = (None, ()) if case.id in out else _read(case, run)
        findings += [*found, *review.patient(case, read)]
        if watch:
            watch(case, read)
        if progress:
            progress(done, len(site.cases))
    findings += review.finish()
    place = {case.id: number for number, case in enumerate(site.cases)}
    findings.sort(key=lambda one: place.get(one.patient, -1))
    named = Counter(name for case in site.cases if case.label >= 0 for name in run.task.named(case.label))
    unlabelled = sum(case.label < 0 for case in site.cases)
    return SiteCheck(
        site=site.name,
        patients=len(site.cases),
        modalities={m: sum(m in case.files for case in site.cases) for m in looked_for(run.data.modalities)},
        masks=sum(case.mask is not None for case in site.cases),
        classes={**{name: named[name] for name in run.task.classes}, "unlabelled": unlabelled},
        findings=tuple(findings),
        covariates=_known(site, run),
    )


def _read(case: Case, run: RunConfig) -> tuple[Patient | None, tuple[Finding, ...]]:
    """One patient, None where they stay out, and what was found."""
    try:
        read = read_patient(case, run.data)
    except StaysOutError as error:
        return None, error.findings
    return read, read.findings


def _by_level(findings: list[Finding]) -> dict[str, int]:
    return {level.value: sum(one.level is level for one in findings) for level in Level}


def _known(site: Site, run: RunConfig) -> dict[str, int]:
    """Of how many patients each covariate is known."""
    names = [covariate.name for covariate in run.data.covariates]
    return {name: sum(not math.isnan(case.covariates[i]) for case in site.cases) for i, name in enumerate(names)}
