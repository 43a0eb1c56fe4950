"""The whole page: what each section reads. `page.html` has the sections in their order; each is an HTML file beside its module.

HTML files do not travel in a Flower app's bundle, and so neither does the page: installed commands render it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from server.report.page import (
    calibration,
    classes,
    comparison,
    conformal,
    headline,
    ood,
    patients,
    privacy,
    provenance,
    rounds,
    subgroups,
    subsets,
    svg,
    values,
)


@dataclass(frozen=True)
class View:
    """All that the page shows. What a report lacks is None or empty, and its section absent."""

    top: headline.Top
    rows: tuple[comparison.Row, ...]
    detectable: str
    confusion: tuple[classes.ClassRow, ...]
    roc: tuple[classes.Roc, ...]
    calibration: calibration.Calibration | None
    sets: conformal.Conformal | None
    abstention: conformal.Abstention | None
    subsets: subsets.Subsets | None
    ood: str
    subgroups: tuple[subgroups.Kind, ...]
    rounds: rounds.Rounds
    privacy: tuple[tuple[str, Mapping[str, Any]], ...]
    aggregation: Mapping[str, Any]
    patients: tuple[patients.Patient, ...]
    provenance: tuple[tuple[str, str], ...]
    config: str

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """(place, name) of the sections that are there."""
        there = {
            "classes": (self.confusion and self.top.n, "Classes"),
            "compared": (self.top.n, "Comparison"),
            "roc": (self.roc, "ROC"),
            "calibration": (self.calibration, "Calibration"),
            "sets": (self.sets, "Prediction sets"),
            "abstention": (self.abstention, "Abstention"),
            "subsets": (self.subsets, "Missing modalities"),
            "ood": (self.ood, "Unlike training"),
            "groups": (self.subgroups, "Groups"),
            "rounds": (self.rounds.rows, "Rounds"),
            "privacy": (self.privacy, "Privacy"),
            "patients": (self.patients, "Patients"),
            "words": (True, "Words"),
            "provenance": (self.provenance or self.config, "Origin"),
        }
        return tuple((place, name) for place, (shown, name) in there.items() if shown)


def build(report: Mapping[str, Any], pictures: Mapping[str, str]) -> View:
    """Read a report, made by `server.report.report.assemble`, into what the page shows."""
    external, calibrated = values.table(report["external"]), values.table(report["calibration"])
    source = values.table(report["provenance"])
    return View(
        top=headline.read(report),
        rows=comparison.comparison(report),
        detectable=headline.detectable_text(values.table(report.get("detectable"))),
        confusion=classes.read_confusion(external),
        roc=classes.read_roc(external),
        calibration=calibration.read(calibrated),
        sets=conformal.read_sets(values.table(calibrated.get("conformal"))),
        abstention=conformal.read_abstention(calibrated.get("abstention")),
        subsets=subsets.read(report),
        ood=ood.read(values.table(report.get("ood"))),
        subgroups=subgroups.read(values.table(report.get("subgroups"))),
        rounds=rounds.read(report),
        privacy=privacy.read(report),
        aggregation=privacy.read_aggregation(report),
        patients=patients.read(report, pictures),
        provenance=provenance.pairs({k: v for k, v in source.items() if k not in ("config", "external")}),
        config=provenance.config_text(source.get("config")),
    )


def render(report: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The report as one self-contained HTML page: no script, no network, light and dark, screen and paper."""
    view = build(report, pictures)
    hospital = values.table(report["provenance"]).get("external")
    title = f"FedMRI report: {hospital}" if isinstance(hospital, str) and hospital else "FedMRI report"
    return template("page.html").render(view=view, svg=svg, verdict=comparison.verdict, title=title)


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
        number=lambda value, digits=2: values.number(values.real(value), digits),
        signed=values.signed,
        percent=values.percent,
        interval=values.interval_text,
        measure=values.measure_text,
        difference=values.difference_text,
    )
    return environment
