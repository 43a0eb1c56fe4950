"""One whole experiment: read all data first, run the federation, audit it, put the baselines beside it, report."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.errors import ConfigError, DataError
from common.evaluation.comparison import detectable, warning
from common.files import write_atomic
from common.models.backbones.weights import SHIPPED_FILES
from common.models.build import build_model
from common.run_folder import MODEL_NAME
from common.training.trainable import needs_labels, no_label
from server.report.privacy_audit import refutations, with_audit
from server.report.publish import write_report
from server.report.report import read_report
from server.run.plan import require_folder, split_external, training_sites
from simulation import findings, segmentation
from simulation.auditing import audit_sites
from simulation.baselines import measure, plan_baselines, probabilities_json, run_baselines
from simulation.cluster_check import require_alike
from simulation.engines import DEFAULT_ENGINE, cluster_for, run_federation
from simulation.example import copy_weights
from simulation.experiment_plan import Experiment
from simulation.standard import with_own_standard
from simulation.twins import without_twins

CHECKOUT = Path(__file__).resolve().parents[1]

Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # what, done, in all
Fits = Callable[[RunConfig], object]  # refuses a configuration that the command can do nothing with


def plan_experiment(
    config: str,
    settings: tuple[str, ...],
    data: Path,
    external: str,
    out: Path,
    cache: Path,
    models: Path | None = None,
    *,
    resume: bool = False,
    engine: str = DEFAULT_ENGINE,
    address: str | None = None,
    fits: Fits | None = None,
) -> Experiment:
    """Check everything that can be checked without opening an image; weights come last, as what may be mended last.

    Raises:
        ConfigError: a wrong setting, what `fits` refuses, an external site that is not there, or a cluster's address for another
            engine than Ray.
        WeightsError: weights that cannot be had, or of another architecture.
    """
    cluster = cluster_for(engine, address)
    source = config_path(config).resolve()
    checked = load_config(source, settings)
    if fits:
        fits(checked)
    if checked.model.weights not in ("hub", "random", *SHIPPED_FILES):
        settings = (*settings, f"model.weights={json.dumps(str(Path(checked.model.weights).expanduser().resolve()))}")
        checked = load_config(source, settings)
    data, out = data.expanduser().resolve(), out.expanduser().resolve()
    held_out = split_external(external)
    if not held_out:
        raise ConfigError("--external: expected the name of a site folder, or several joined by '+'.")
    sites = training_sites(data, held_out)
    if len(sites) < checked.federation.min_sites:
        raise ConfigError(
            f"federation.min_sites = {checked.federation.min_sites} asks for more training sites than {data} has beside the "
            f"external one: {', '.join(sites)}. Set a smaller federation.min_sites, or add sites."
        )
    build_model(checked)
    models = models or out / "baselines"
    return Experiment(checked, source, settings, data, sites, held_out, out, cache, models, resume, engine, cluster)


def weights_file(plan: Experiment) -> list[Path]:
    """The file of the run's frozen weights, where it is the researcher's own."""
    named = plan.config.model.weights
    return [] if named in ("hub", "random", *SHIPPED_FILES) else [Path(named)]


def run_experiment(
    plan: Experiment, note: Note, progress: Progress, on_round: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Do it all.

    Args:
        plan: sites, external hospital, configuration and run folder.
        note: called with each sentence that the user should read now.
        progress: called with how far the reading of images, the audits, the baselines are.
        on_round: called with each finished round.

    Returns:
        The report, as it stands in RUN/report.json.

    Raises:
        DataError: the external site, or too many training sites, cannot be used.
        FederationError: the run folder holds a run already, or none to resume, or the cluster cannot be used, or the run did not
            end well.
    """
    require_folder(plan.out, resume=plan.resume)
    if plan.cluster:
        require_alike(plan.cluster, [plan.data, *weights_file(plan)], plan.out)
    if plan.config.model.weights in SHIPPED_FILES:
        copy_weights()
    plan, refused, twins = prepare(plan, note, progress)
    run_config: dict[str, str | bool] = {
        "config": str(plan.source),
        "set": json.dumps(plan.settings),
        "data": str(plan.data),
        "external": "+".join(plan.external),
        "cache": str(plan.cache),
        "resume": plan.resume,
    }
    run_federation(plan.engine, CHECKOUT, run_config, len(plan.sites), plan.out, on_round=on_round, cluster=plan.cluster)
    report = read_report(plan.out) | {"twins": twins}
    write_report(plan.out, report)
    if plan.config.privacy.enabled and plan.config.evaluation.audit:
        report = add_audits(plan, report, refused, note, progress)
    if plan.config.evaluation.baselines:
        report = add_baselines(plan, report, refused, note, progress)
    return report


def prepare(plan: Experiment, note: Note, progress: Progress) -> tuple[Experiment, tuple[str, ...], dict[str, Any]]:
    """Read all patients, and settle who takes part and on which intensity scale, before anything is learned.

    Returns:
        The experiment as it will be run, the training sites that were refused, and `twins` of report.json.

    Raises:
        DataError: as `read_all` and `without_twins`.
    """
    refused = read_all(plan, note, progress)
    asked, (plan, twins) = plan, without_twins(plan, note, progress)
    plan = with_own_standard(plan, refused, note)
    if plan is not asked:
        refused = read_all(plan, lambda _: None, progress)
    return plan, refused, twins


def read_all(plan: Experiment, note: Note, progress: Progress) -> tuple[str, ...]:
    """Fill the slice cache of every site; what is wrong is said here, by patient and file, where the researcher sits.

    Returns:
        The training sites that were refused: the federation goes on without them.

    Raises:
        DataError: the external site is refused, or too few others are left.
    """
    refused: list[str] = []
    trains: dict[str, SiteData] = {}
    measured = 0  # labelled patients of the external hospital
    for name in (*plan.external, *plan.sites):
        try:
            site = read_site(plan.data / name, plan.config, simulated=True)
            patients = open_site(site, plan.config.data.unharmonised, plan.cache, progress=partial(progress, f"reading {name}"))
            measured += len(patients.labelled) if name in plan.external else 0
            trains |= {} if name in plan.external else {name: patients}
        except DataError as error:
            if name in plan.external:
                raise
            note(str(error))
            refused.append(name)
    if len(trains) < plan.config.federation.min_sites:
        raise DataError(
            f"{len(trains)} of {len(plan.sites)} training sites can be used; the run asks for "
            f"{plan.config.federation.min_sites} (federation.min_sites). Mend {', '.join(refused)}."
        )
    require_learnable(plan.config, trains)
    if not measured:
        note(f"No patient of the external hospital {'+'.join(plan.external)} has a label: nothing can be measured there.")
    if refused:
        note(f"The federation goes on without {', '.join(refused)}.")
    return tuple(refused)


def require_learnable(config: RunConfig, sites: Mapping[str, SiteData]) -> None:
    """Refuse, before anything trains, what the patients that were read cannot teach.

    Args:
        config: of the run.
        sites: the training sites' patients.

    Raises:
        DataError: no label at all, a covariate that is known of nobody, or fewer sites with labels than the aggregator needs in
            head rounds.
    """
    names = [covariate.name for covariate in config.data.covariates]
    unknown = set(names).intersection(*(patients.known_of_nobody(names) for patients in sites.values()))
    if unknown:
        raise DataError(
            f"data.covariates names {', '.join(sorted(unknown))}, which is known of no patient at any training site "
            f"({', '.join(sites)}). Correct the name or the tables (participants.tsv), or take it out."
        )
    strategy = config.federation.strategy
    labelled = [name for name, patients in sites.items() if len(patients.labelled)]
    if not labelled and needs_labels(config):
        raise DataError(no_label(config))
    if config.training.head_rounds and not labelled:
        raise DataError(
            "Head rounds fit the head by labels, and no patient of any training site has one: leave them out "
            "by `--set training.head_rounds=0`."
        )
    if config.training.head_rounds and len(labelled) < strategy.least_sites:
        raise DataError(
            f'federation.strategy = "{strategy.name}" needs {strategy.least_sites} sites with labelled patients in head rounds; '
            f'they are {len(labelled)} ({", ".join(labelled) or "none"}). Choose another, such as federation.strategy = "fedavg".'
        )


def add_audits(
    plan: Experiment, report: dict[str, Any], refused: tuple[str, ...], note: Note, progress: Progress
) -> dict[str, Any]:
    """Audit every site that the report claims an epsilon for, say what was found, and write the report anew."""
    sites = [plan.data / site for site in plan.sites if site in report["privacy"] and site not in refused]
    done: list[str] = []

    def count(name: str) -> None:
        done.append(name)
        progress("privacy audits", len(done), len(sites) + 1)

    progress("privacy audits", 0, len(sites) + 1)
    external = [plan.data / name for name in plan.external]
    model = plan.out / MODEL_NAME
    audits = audit_sites(sites, external, plan.config, plan.cache, model, plan.workers, count)
    for site, table in audits.items():
        report = with_audit(report, site, table)
    write_report(plan.out, report)
    for sentence in refutations(report):
        note(sentence)
    passed = [site for site in audits if report["privacy"][site]["audit"]["passed"]]
    note(f"Privacy audit: passed at {len(passed)} of {len(audits)} sites.")
    return report


def add_baselines(
    plan: Experiment, report: dict[str, Any], refused: tuple[str, ...], note: Note, progress: Progress
) -> dict[str, Any]:
    """Train the baselines, measure them on the same patients, say what so many can show, and write the report anew."""
    sites = [site for site in plan.sites if site not in refused]
    jobs = plan_baselines(plan.data, sites, plan.external, plan.config, plan.cache, plan.models)
    if not jobs:
        note("No baselines: no patient of any training site has a label.")
        return report
    done: list[str] = []

    def count(name: str) -> None:
        done.append(name)
        progress(f"baselines ({name} done)", len(done), len(jobs))

    progress("baselines", 0, len(jobs))
    if plan.config.task.decoder:
        return _segmented(plan, report, segmentation.run_baselines(jobs, plan.workers, count))
    probabilities = run_baselines(jobs, plan.workers, count)
    ids = [patient["id"] for patient in report["patients"]]
    if not plan.config.task.exclusive:
        write_atomic(plan.out / "baselines.json", probabilities_json(ids, probabilities))
        report = findings.with_baselines(report, probabilities, plan.config)
        write_report(plan.out, report)
        return report
    classes = list(plan.config.task.classes)
    labels = [classes.index(p["label"]) if p["label"] is not None else -1 for p in report["patients"]]
    write_atomic(plan.out / "baselines.json", probabilities_json(ids, probabilities))
    federated = np.array([patient["probabilities"] for patient in report["patients"]])
    report = report | {
        "baselines": measure(probabilities, labels, federated, plan.config),
        "detectable": detectable(np.array(labels), federated, list(probabilities.values()), plan.config),
    }
    if said := warning(report["detectable"]):
        note(said)
    write_report(plan.out, report)
    return report


def _segmented(plan: Experiment, report: dict[str, Any], found: dict[str, segmentation.Found]) -> dict[str, Any]:
    """The report with the baselines of a run that segments."""
    write_atomic(plan.out / "baselines.json", segmentation.baselines_json(found))
    federated = segmentation.measured_of(report["patients"])
    report = report | {"baselines": segmentation.baseline_entries(federated, found, plan.config)}
    write_report(plan.out, report)
    return report
