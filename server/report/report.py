"""A run's results: report.json decoded once, for page, model card, comparison and terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import FedMRIError
from common.run_folder import REPORT_NAME
from server.report.calibration import Calibration, decode_calibration
from server.report.decision import Decision, decode_decision
from server.report.decode import listed, names, real, table, whole
from server.report.evaluation import Detectable, Evaluation, decode_detectable, decode_evaluation
from server.report.findings import Findings, decode_findings
from server.report.mend import how_to_mend
from server.report.own_models import OwnModels, decode_own_models
from server.report.privacy import Aggregation, Claim, decode_aggregation, decode_claims
from server.report.round import Round, decode_round
from server.report.segmentation import Segmentation, decode_segmentation
from server.report.stage import Stage, decode_stage
from server.report.twins import Twins, decode_twins

KEYS = {
    "external": dict,
    "patients": list,
    "baselines": dict,
    "modality_subsets": dict,
    "rounds": list,
    "calibration": dict | None,
    "privacy": dict,
    "provenance": dict,
}


@dataclass(frozen=True)
class Patient:
    """An external patient."""

    id: str | None
    truth: str | None  # class; None where it is not known
    probabilities: tuple[tuple[str, float | None], ...]
    modalities: tuple[str, ...]
    prediction_set: tuple[str, ...]
    flagged: bool  # as out of distribution
    picture: str | None  # a file under RUN/evidence

    @property
    def predicted(self) -> str | None:
        """The class with the highest probability."""
        known = [(name, value) for name, value in self.probabilities if value is not None]
        return max(known, key=lambda pair: pair[1])[0] if known else None


@dataclass(frozen=True)
class Baseline:
    """Another way to train, measured on the same patients."""

    kind: str  # pooled, local, linear_probe
    site: str  # of a local one
    result: Evaluation | None


@dataclass(frozen=True)
class OutOfDistribution:
    """How many patients were flagged as out of distribution. `scored`: whether there is a threshold."""

    rate: float | None
    flagged: int | None
    of: int | None
    scored: bool
    held_back: int | None = None  # so few patients that of those who are not flagged nothing can be told; None: enough


@dataclass(frozen=True)
class Covariates:
    """The model told what is known of the external patients besides images, and told nothing."""

    known: Mapping[str, int | None]  # by name, of how many patients
    of: int | None
    told: Evaluation
    untold: Evaluation


@dataclass(frozen=True)
class Provenance:
    """Provenance of a result: configuration, code, weights, sites."""

    hospital: str  # the external one; "" where it is not named
    config: Mapping[str, Any]  # empty where it is no table
    config_text: str
    code: str
    sites: tuple[str, ...] | None
    facts: Mapping[str, Any]  # all but hospital and configuration


@dataclass(frozen=True)
class Report:
    """All results of a run. What an old or a bare report lacks is None or empty."""

    external: Evaluation
    patients: tuple[Patient, ...]
    baselines: tuple[Baseline, ...]
    subsets: Mapping[str, Evaluation]  # by modalities, such as t1+flair
    covariates: Covariates | None  # None: the run takes none
    subgroups: Mapping[str, Mapping[str, Evaluation | None]]  # kind -> group
    detectable: Detectable | None
    rounds: tuple[Round, ...]
    calibration: Calibration | None
    decision: Decision | None
    stage: Stage | None
    twins: Twins | None
    personal: OwnModels | None
    ood: OutOfDistribution | None
    privacy: tuple[Claim, ...]
    aggregation: Aggregation
    provenance: Provenance
    segmentation: Segmentation | None = None  # None: the run does not segment
    findings: Findings | None = None  # None: the run is of another task


def decode(report: Mapping[str, Any]) -> Report:
    """Decode a report.json of this version or an older one."""
    external = decode_evaluation(report["external"]) or Evaluation()
    groups = table(report.get("subgroups")).items()
    return Report(
        external=external,
        patients=tuple(_patient(table(entry), list(external.support)) for entry in listed(report["patients"])),
        baselines=_baselines(table(report["baselines"])),
        subsets={
            str(name): decode_evaluation(entry) or Evaluation() for name, entry in table(report["modality_subsets"]).items()
        },
        covariates=_covariates(table(report.get("covariates"))),
        subgroups={str(kind): {str(k): decode_evaluation(v) for k, v in table(entry).items()} for kind, entry in groups},
        detectable=decode_detectable(report.get("detectable")),
        rounds=tuple(decode_round(entry) for entry in listed(report["rounds"])),
        calibration=decode_calibration(report["calibration"]),
        decision=decode_decision(report.get("decision")),
        stage=decode_stage(report.get("stage")),
        twins=decode_twins(report.get("twins")),
        personal=decode_own_models(report.get("personal")),
        ood=_ood(table(report.get("ood"))),
        privacy=decode_claims(report["privacy"]),
        aggregation=decode_aggregation(report.get("aggregation")),
        provenance=_provenance(table(report["provenance"])),
        segmentation=decode_segmentation(report),
        findings=decode_findings(report),
    )


def read_report(run: Path) -> dict[str, Any]:
    """Read a run folder's report.json.

    Raises:
        FedMRIError: no file, no JSON, or a key that is missing or of another kind.
    """
    path = run / REPORT_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FedMRIError(
            f"Run {run}: no {REPORT_NAME} ({error.strerror}). Name the folder of a run that has finished; "
            "its logs say why one has not."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FedMRIError(f"{path}: not valid JSON ({error}). {how_to_mend(run)}") from error
    if not isinstance(report, dict):
        raise FedMRIError(f"{path}: expected a table with {', '.join(KEYS)}; got {type(report).__name__}. {how_to_mend(run)}")
    wrong = [key for key, kind in KEYS.items() if key not in report or not isinstance(report[key], kind)]
    if wrong:
        raise FedMRIError(
            f"{path}: {', '.join(wrong)} missing or of another kind. Where another version of FedMRI wrote it, read it by that. "
            f"{how_to_mend(run)}"
        )
    return report


def _patient(entry: Mapping[str, Any], classes: Sequence[str]) -> Patient:
    given, picture = entry.get("probabilities"), entry.get("picture")
    values = [real(value) for value in (given.values() if isinstance(given, Mapping) else listed(given))]
    called = names(given) if isinstance(given, Mapping) else classes or [f"class {c}" for c in range(len(values))]
    return Patient(
        id=str(entry["id"]) if "id" in entry else None,
        truth=_label(entry.get("label"), called),
        probabilities=tuple(zip(called, values, strict=False)),
        modalities=names(entry.get("modalities")),
        prediction_set=names(entry.get("prediction_set")),
        flagged=table(entry.get("ood")).get("flagged") is True,
        picture=picture if isinstance(picture, str) else None,
    )


def _label(label: Any, called: Sequence[str]) -> str | None:
    """The true class by name, whether it came as a name or as an index."""
    if isinstance(label, bool) or not isinstance(label, int):
        return label if isinstance(label, str) else None
    return called[label] if 0 <= label < len(called) else None


def _baselines(entry: Mapping[str, Any]) -> tuple[Baseline, ...]:
    """In the order in which they are shown."""
    local = table(entry.get("local")).items()
    pooled, probe = (
        [Baseline(key, "", decode_evaluation(entry[key]))] if key in entry else [] for key in ("pooled", "linear_probe")
    )
    return (*pooled, *(Baseline("local", str(site), decode_evaluation(value)) for site, value in local), *probe)


def _covariates(entry: Mapping[str, Any]) -> Covariates | None:
    if not entry:
        return None
    told, untold = (decode_evaluation(entry.get(key)) or Evaluation() for key in ("with", "without"))
    known = {str(name): whole(count) for name, count in table(entry.get("known")).items()}
    return Covariates(known, whole(entry.get("of")), told, untold)


def _ood(entry: Mapping[str, Any]) -> OutOfDistribution | None:
    if not entry:
        return None
    scored = entry.get("threshold", 0.0) is not None
    return OutOfDistribution(
        real(entry.get("rate")), whole(entry.get("flagged")), whole(entry.get("of")), scored, whole(entry.get("held_back"))
    )


def _provenance(entry: Mapping[str, Any]) -> Provenance:
    hospital, config, sites = entry.get("external"), entry.get("config"), table(entry.get("data")).get("sites")
    known = _config(config)
    return Provenance(
        hospital=hospital if isinstance(hospital, str) else "",
        config=known,
        config_text=json.dumps(known, indent=2, ensure_ascii=False) if known else config if isinstance(config, str) else "",
        code=str(entry.get("code") or ""),
        sites=names(sites) if isinstance(sites, list) else None,
        facts={str(key): value for key, value in entry.items() if key not in ("config", "external")},
    )


def _config(config: Any) -> Mapping[str, Any]:
    """The run's configuration, whether it came as a table or as JSON text; empty where it is neither."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError):
            return {}
    return table(config)
