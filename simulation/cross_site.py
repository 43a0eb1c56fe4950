"""Each hospital left out in turn: one federation for each group of sites, their predictions pooled over all patients."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.run import RunConfig, config_from_table
from common.config.site import find_sites
from common.errors import ConfigError, FederationError
from common.evaluation.comparison import detectable, measure, warning, with_and_without
from server.report.privacy_audit import refutations
from server.report.publish import HTML_NAME, write_page, write_report
from server.report.report import read_report
from server.report.results import complete
from server.run.plan import require_fresh
from simulation import findings, segmentation
from simulation.baselines import measure as measure_baselines
from simulation.engines import DEFAULT_ENGINE
from simulation.experiment import Note, Progress, plan_experiment, run_experiment

FOLD = "external-"

Answers = dict[str, dict[str, list[float]]]  # model -> patient -> probabilities


def plan_folds(data: Path, groups: Sequence[str]) -> list[str]:
    """Which sites are external together in each fold.

    Args:
        data: folder of the site folders.
        groups: such as `du cs fg+ez`; empty: every site by itself.

    Raises:
        ConfigError: an unknown site, one named twice, or fewer than two folds.
    """
    known = sorted(folder.name for folder in find_sites(data))
    named = [site for group in groups for site in group.split("+")]
    unknown = [site for site in named if site not in known]
    if unknown or len(set(named)) != len(named):
        raise ConfigError(f"--folds: expected each of {', '.join(known)} at most once; got {', '.join(named)}.")
    folds = [*groups, *(site for site in known if site not in named)]
    if len(folds) < 2:
        raise ConfigError(f"{data}: expected at least two sites to leave out in turn, found {', '.join(known) or 'none'}.")
    return folds


def run_cross_site(
    config: str,
    settings: tuple[str, ...],
    data: Path,
    folds: Sequence[str],
    out: Path,
    cache: Path,
    note: Note,
    progress: Progress,
    on_round: Callable[[dict[str, Any]], None],
    engine: str = DEFAULT_ENGINE,
    address: str | None = None,
) -> dict[str, Any]:
    """Run every fold that is not done yet, pool, and write the whole as a report of its own.

    Returns:
        A report: `external` and `baselines` over the patients of all sites, each predicted by a model that never saw their site.
    """
    out = out.expanduser().resolve()
    reports = []
    for fold in folds:
        run = out / f"{FOLD}{fold}"
        plan = plan_experiment(config, settings, data, fold, run, cache, out / "models", engine=engine, address=address)
        if _is_done(run, plan.config):
            note(f"{fold} as the external hospital: done before, kept.")
            reports.append((run, read_report(run)))
            if not (run / HTML_NAME).is_file():  # cut off between the results and their page
                write_page(*reports[-1])
            for sentence in refutations(reports[-1][1]):
                note(sentence)
            continue
        note(f"{fold} is the external hospital.")
        require_fresh(run)
        reports.append((run, run_experiment(plan, note, progress, on_round)))
    pooled = pool_folds(out, reports)
    if said := warning(pooled["detectable"]):
        note(said)
    return pooled


def pool_folds(out: Path, reports: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """One report over all folds' patients. A hospital's own model is measured on the patients of all the others."""
    provenance = reports[0][1]["provenance"]
    config = config_from_table(provenance["config"])
    if not config.task.exclusive:
        return _pool_without_classes(out, reports, config)
    patients: list[dict[str, Any]] = []
    answers: Answers = {}
    for run, report in reports:
        fold = run.name.removeprefix(FOLD)
        patients += [_without_picture(p) | {"id": f"{fold}/{p['id']}"} for p in report["patients"]]
        told = {"federated": {p["id"]: p["probabilities"] for p in report["patients"]}} | _read_answers(run)
        for name, table in told.items():
            answers.setdefault(name, {}).update({f"{fold}/{patient}": values for patient, values in table.items()})
    labels = _labels(patients, config)
    said = {name: _probabilities(table, patients, config) for name, table in answers.items()}
    federated = said.pop("federated")
    external = measure(labels, federated, config) | config.task.curves(labels, federated)
    provenance = _in_turn(reports)
    baselines = measure_baselines(said, labels.tolist(), federated, config)
    least = detectable(labels, federated, list(said.values()), config)
    covariates = {}
    if config.data.covariates:
        known = {row.name: np.array([row.name in p["covariates"] for p in patients]) for row in config.data.covariates}
        without = np.array([p["probabilities_without_covariates"] for p in patients])
        covariates = with_and_without(labels, federated, without, known, config)
    pooled = complete(
        {
            "external": external,
            "patients": patients,
            "baselines": baselines,
            "covariates": covariates,
            "detectable": least,
            "provenance": provenance,
        }
    )
    write_report(out, pooled)
    return pooled


def _pool_without_classes(out: Path, reports: Sequence[tuple[Path, dict[str, Any]]], config: RunConfig) -> dict[str, Any]:
    """One report over all folds' patients of runs that segment, or tell findings."""
    runs = {run.name.removeprefix(FOLD): (run, report) for run, report in reports}
    pool = segmentation.pooled_folds if config.task.decoder else findings.pooled_folds
    patients, measured = pool(runs, config)
    pooled = complete({**measured, "patients": patients, "provenance": _in_turn(reports)})
    write_report(out, pooled)
    return pooled


def _in_turn(reports: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """Where all folds come from."""
    folds = ", ".join(run.name.removeprefix(FOLD) for run, _ in reports)
    return {**reports[0][1]["provenance"], "external": f"each hospital in turn: {folds}"}


def _without_picture(patient: dict[str, Any]) -> dict[str, Any]:
    """Without the picture, which stays with the fold's own report: folds give their pictures the same names."""
    return {name: value for name, value in patient.items() if name != "picture"}


def _labels(patients: Sequence[dict[str, Any]], config: RunConfig) -> NDArray[np.int64]:
    classes = list(config.task.classes)
    return np.array([classes.index(p["label"]) if p["label"] is not None else -1 for p in patients], np.int64)


def _probabilities(table: dict[str, list[float]], patients: Sequence[dict[str, Any]], config: RunConfig) -> NDArray[np.float64]:
    """What one model said [N, C]; NaN for patients that it was not asked about."""
    nothing = [float("nan")] * len(config.task.classes)
    return np.array([table.get(p["id"], nothing) for p in patients])


def _read_answers(run: Path) -> Answers:
    """What the baselines of one fold said of each patient."""
    file = run / "baselines.json"
    answers: Answers = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return answers


def _is_done(run: Path, config: RunConfig) -> bool:
    """Whether the fold stands there whole.

    Raises:
        FederationError: it is of another configuration.
    """
    if not (run / "report.json").is_file():
        return False
    was = config_from_table(read_report(run)["provenance"]["config"])
    if replace(was, twins=replace(was.twins, left_out=config.twins.left_out)) != config:  # whom a run dropped, it wrote there
        raise FederationError(f"{run} holds a fold of another configuration. Name another --out, or remove it.")
    return (run / "baselines.json").is_file() or not config.evaluation.baselines
