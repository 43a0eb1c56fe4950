"""The whole page: what each section reads. `page.html` has the sections in their order; each is an HTML file beside its module.

HTML files do not travel in a Flower app's bundle, and so neither does the page: installed commands render it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from server.report.decode import real
from server.report.page import (
    calibration,
    classes,
    comparison,
    conformal,
    covariates,
    decision,
    findings,
    headline,
    ood,
    own_models,
    patients,
    provenance,
    rounds,
    segmentation,
    stage,
    subgroups,
    subsets,
    svg,
    values,
)
from server.report.privacy import Aggregation, Audit, Claim
from server.report.report import Report
from server.report.twins import Twins

UNAUDITED = Audit(None, (), None, None, None, None)


@dataclass(frozen=True)
class View:
    """All that the page shows. What a report lacks is None or empty, and its section absent."""

    top: headline.Top
    segmentation: segmentation.Section | None
    findings: findings.Section | None
    rows: tuple[comparison.Row, ...]
    detectable: str
    confusion: tuple[classes.ClassRow, ...]
    roc: tuple[classes.Roc, ...]
    decision: decision.Section | None
    calibration: calibration.Section | None
    sets: conformal.Sets | None
    abstention: conformal.Abstention | None
    subsets: subsets.Subsets | None
    covariates: covariates.Section | None
    ood: str
    subgroups: tuple[subgroups.Kind, ...]
    rounds: rounds.Rounds
    stage: stage.Section | None
    twins: Twins | None
    personal: own_models.Section | None
    privacy: tuple[Claim, ...]
    aggregation: Aggregation
    patients: tuple[patients.Row, ...]
    provenance: tuple[tuple[str, str], ...]
    config: str

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """(place, name) of the sections that are there."""
        there = {
            "segmentation": (self.segmentation, "Segmentation"),
            "findings": (self.findings, "Findings"),
            "classes": (self.confusion and self.top.n, "Confusion matrix"),
            "compared": (self.top.n, "Comparison"),
            "roc": (self.roc, "ROC"),
            "decision": (self.decision, "Decision"),
            "calibration": (self.calibration, "Calibration"),
            "sets": (self.sets, "Prediction sets"),
            "abstention": (self.abstention, "Abstention"),
            "subsets": (self.subsets, "Missing modalities"),
            "covariates": (self.covariates, "Clinical covariates"),
            "ood": (self.ood, "Out of distribution"),
            "groups": (self.subgroups, "Subgroups"),
            "rounds": (self.rounds.rows, "Rounds"),
            "stage": (self.stage, "Round kept"),
            "personal": (self.personal, "Global and personal"),
            "twins": (self.twins, "Same person twice"),
            "privacy": (self.privacy, "Privacy"),
            "patients": (self.patients, "Patients"),
            "words": (True, "Glossary"),
            "provenance": (self.provenance or self.config, "Provenance"),
        }
        return tuple((place, name) for place, (shown, name) in there.items() if shown)


def build(report: Report, pictures: Mapping[str, str]) -> View:
    """What the page shows of a report."""
    calibrated, source = report.calibration, report.provenance
    of_no_class = report.segmentation is not None or report.findings is not None  # they show these in their own section
    return View(
        top=headline.read(report),
        segmentation=segmentation.read(report.segmentation),
        findings=findings.read(report.findings),
        rows=comparison.comparison(report),
        detectable=headline.detectable_text(report.detectable),
        confusion=classes.read_confusion(report.external),
        roc=classes.read_roc(report.external),
        decision=decision.read(report.decision),
        calibration=calibration.read(calibrated),
        sets=conformal.read_sets(calibrated.conformal) if calibrated else None,
        abstention=conformal.read_abstention(calibrated.abstention) if calibrated else None,
        subsets=None if of_no_class else subsets.read(report.subsets),
        covariates=covariates.read(report.covariates),
        ood=ood.read(report.ood),
        subgroups=subgroups.read(report.subgroups),
        rounds=rounds.read(report.rounds),
        stage=stage.read(report.stage),
        twins=report.twins,
        personal=own_models.read(report.personal),
        privacy=report.privacy,
        aggregation=report.aggregation,
        patients=() if of_no_class else patients.read(report, pictures),
        provenance=provenance.pairs(source.facts),
        config=source.config_text,
    )


def render(report: Report, pictures: Mapping[str, str]) -> str:
    """The report as one self-contained HTML page: no script, no network, light and dark, screen and paper."""
    hospital = report.provenance.hospital
    title = f"FedMRI report: {hospital}" if hospital else "FedMRI report"
    view = build(report, pictures)
    return template("page.html").render(view=view, svg=svg, verdict=comparison.verdict, title=title, unaudited=UNAUDITED)


def template(name: str) -> Template:
    """One of the HTML files beside this module."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    """Templates are compiled once. What is None shows as a dash."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: values.NOTHING if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda value, digits=2: values.number(real(value), digits),
        signed=values.signed,
        percent=values.percent,
        interval=values.interval_text,
        measure=values.measure_text,
        difference=values.difference_text,
    )
    return environment
