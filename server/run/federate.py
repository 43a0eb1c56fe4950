"""One run at the server, from the run configuration to the report; `server.app` only hands it Flower's grid."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import MetricRecord
from flwr.serverapp import Grid
from flwr.supercore import log

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import CALIBRATION_NAME, UNSCALED, save_calibration
from common.messages.code_version import code_hash
from common.messages.round import Task, pack_arrays, unpack_arrays
from common.models.arrays import Arrays, get_arrays, save_arrays
from common.models.backbones.licence import weights_licence
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.run_folder import MODEL_NAME, REPORT_NAME
from common.training.trainable import is_undecided, most_trained
from server.events.kinds import Evaluated
from server.events.rounds import RoundSoFar, as_line
from server.report.results import complete, write_results
from server.run.calibrate import Calibrated, calibrate
from server.run.checkpoint import Checkpoint, RunLog, load_like, save_checkpoint
from server.run.ending import ERROR_NAME, room_on_disk, told_of_end
from server.run.evidence_pictures import draw_pictures, may_be_shown
from server.run.external import FinalResult, measure_final, measure_round, open_external, read_external
from server.run.findings import measure_findings
from server.run.held_out import held_out_check
from server.run.own_models import own_models
from server.run.plan import RunPlan, travelling_config
from server.run.pooling import told_after, untaught
from server.run.privacy_claims import aggregation_claims, privacy_claims
from server.run.resume import begin, close_round, only_run, require_in_place, require_same_run, resume, write_open
from server.run.round_lines import read_rounds
from server.run.segmentation import external_cases, measure_segmented
from server.run.stage import Kept, keep_stage
from server.run.standard import harmonised
from server.run.twins import compare_sites, keep_twins, kept_twins
from server.run.weights import supplier
from server.strategy.influence import bounds_in_force
from server.strategy.parcels import ParcelGrid
from server.strategy.progress import Progress
from server.strategy.round_loop import FedMRIAvg
from server.strategy.secure_round_loop import SecureAvg


def federate(grid: Grid, plan: RunPlan) -> None:
    """Train all rounds, measure, and leave the run folder whole; `report.json` comes last and marks success.

    Raises:
        FedMRIError: what a user can mend: too few sites, external data or weights that cannot be used, a full disk.
    """
    config = plan.config
    with only_run(plan.out):
        if plan.resume:  # before the run's record is touched: what is refused here was never a part of it
            require_same_run(plan)
        progress = Progress(plan.out, config.federation.rounds, resumed=plan.resume)
        with told_of_end(progress):
            (plan.out / ERROR_NAME).unlink(missing_ok=True)  # of the attempt that is resumed
            grid = grid if plan.sites else ParcelGrid(grid)
            _federate(grid, harmonised(grid, plan, progress), progress)


def _federate(grid: Grid, plan: RunPlan, progress: Progress) -> None:
    config = plan.config
    log(INFO, "Opening the external site %s", "+".join(plan.external))
    patients = open_external(plan.data, plan.external, config, plan.cache)
    model = build_model(from_file(config, plan.weights))
    template = get_arrays(model)
    with room_on_disk(plan.out):
        start = resume(plan, template, model.backbone_sha256) if plan.resume else begin(plan, model.backbone_sha256)
    if plan.resume:
        progress.resumed(start.round, dict(start.trained), start.redone)
    task = site_task(plan, model, start.run)
    strategy = (
        SecureAvg(config, task, template, plan.sites, progress)
        if config.secure.enabled
        else FedMRIAvg(config.federation, task, template, plan.sites, config, progress, plan.agreed)
    )
    strategy.presence.held_out = plan.external
    compared = held_out_check(plan, task, strategy.presence, progress)
    strategy.prepare = [each for each in (supplier(plan, task, progress), compared) if each]
    twins = kept_twins(plan) if start.round else compare_sites(grid, plan, task, strategy.presence, progress)
    keep_twins(plan, twins)
    with room_on_disk(plan.out), RunLog(plan.out, start.round + 1) as run_log:
        result = strategy.start(
            grid,
            pack_arrays(start.arrays or template),
            config.federation.rounds,
            config.federation.round_timeout,
            evaluate_fn=lambda number, arrays: _look(
                number, TrainedModel(model, unpack_arrays(arrays, template), config), patients
            ),
            before=start,
            on_open=lambda round_: _open(plan, round_),
            on_round=lambda record, arrays: _keep(run_log, plan, model, record.round, arrays, strategy),
        )
        trained = unpack_arrays(result.arrays, template)
        number, calibrated = max(1, len(read_rounds(plan.out))), None
        kept = keep_stage(grid, strategy, partial(load_like, plan.out, template), trained, config, number)
        if config.evaluation.holdout:
            calibrated = calibrate(grid, strategy, kept.arrays, config, number)
        personal = own_models(grid, strategy, kept.arrays, config, number)
        progress.set_state("evaluating")
        unfinished = [as_line(progress.rounds.unfinished)] if progress.rounds.unfinished else []
        finish(plan, progress, model, kept, patients, unfinished, calibrated, twins, personal, compared=compared is not None)


def from_file(config: RunConfig, weights: str) -> RunConfig:
    """The configuration with the file that stands for its `model.weights` on this machine; "": what it says itself."""
    return replace(config, model=replace(config.model, weights=weights)) if weights else config


def site_task(plan: RunPlan, model: MultiModalViT, run: str) -> Task:
    """The request that every site gets in every round. No path of the server's travels to hospitals."""
    config, sha256 = travelling_config(plan), model.backbone_sha256
    folders = {"data": str(plan.data), "cache": str(plan.cache)} if plan.sites else {}
    return Task(1, config.to_json(), code_hash(), sha256, run, **folders)


def finish(
    plan: RunPlan,
    progress: Progress,
    model: MultiModalViT,
    kept: Kept,
    patients: SiteData,
    unfinished: Sequence[dict[str, Any]] = (),
    calibrated: Calibrated | None = None,
    twins: dict[str, Any] | None = None,
    personal: dict[str, Any] | None = None,
    *,
    compared: bool = False,
) -> None:
    """Write the model, measure it, write the results.

    Args:
        plan: its `out` is the run folder.
        progress: told of the final measure.
        model: lends its frozen weights.
        kept: the global model's arrays, and why these.
        patients: external.
        unfinished: a round that gave no model, as a line of rounds.jsonl: what sites spent on it is spent.
        calibrated: by the sites' held-back patients; None: the run holds none back.
        twins: of `server.run.twins`.
        personal: of `server.run.own_models`.
        compared: each site had compared its patients with the external ones before it trained (`server.run.held_out`).
    """
    rounds, arrays = read_rounds(plan.out), kept.arrays
    require_in_place(plan.out)
    save_arrays(plan.out / MODEL_NAME, arrays, model_metadata(plan.config, model))
    if calibrated and calibrated.calibration.sites:
        save_calibration(plan.out / CALIBRATION_NAME, calibrated.calibration, calibrated.moments)
    trained = TrainedModel(model, arrays, plan.config)
    final = _measured(plan, trained, patients, calibrated)
    progress.tell(Evaluated(progress.round, headline_figures(final.external), final=True))
    provenance = {
        "config": json.loads(plan.config.to_json()),
        "backbone": model.backbone_name,
        "weights_sha256": model.backbone_sha256,
        "weights_licence": weights_licence(plan.config.model),
        "code": code_hash(),
        "data": {"folder": str(plan.data), "sites": list(plan.sites) or took_part(rounds), "external_key": patients.key}
        | ({"compared_with_external": took_part(rounds)} if compared else {})
        | ({"hashes": hashes} if (hashes := data_hashes(rounds)) else {}),
        **({"pooling": said} if (said := untaught(plan.config, arrays, progress.round)) else {}),
        "external": "+".join(plan.external),
        "bounds": bounds_in_force(plan.config.federation, hospitals=not plan.sites),
    }
    results = {
        "external": final.external,
        "patients": with_pictures(plan, trained, patients, final.patients, calibrated),
        "modality_subsets": final.modality_subsets,
        "covariates": final.covariates,
        "subgroups": final.subgroups,
        "detectable": final.detectable,
        "rounds": rounds,
        "calibration": final.calibration,
        "ood": final.ood_summary,
        "decision": final.decision,
        "stage": kept.told,
        "twins": twins or {},
        "personal": personal or {},
        "privacy": privacy_claims(plan.config, [*rounds, *unfinished]),
        "aggregation": aggregation_claims(plan.config, rounds, most_trained(arrays, plan.config)),
        "provenance": provenance,
    }
    write_results(plan.out, complete(results))
    log(INFO, "Results: %s. Their page: fedmri-server report %s", plan.out / REPORT_NAME, shlex.quote(str(plan.out)))


def _measured(plan: RunPlan, trained: TrainedModel, patients: SiteData, calibrated: Calibrated | None) -> FinalResult:
    """By the task: of classes, of every voxel, or of findings."""
    if plan.config.task.decoder:
        return measure_segmented(trained, external_cases(plan.data, plan.external, plan.config, patients))
    if not plan.config.task.exclusive:
        return measure_findings(trained, patients)
    acquisitions = read_external(plan.data, plan.external, plan.config, patients)
    return measure_final(trained, patients, calibrated, acquisitions)


def headline_figures(external: Mapping[str, Any]) -> dict[str, float]:
    """The one measure that the events name, where it is defined: `mcc`; `dice` where it segments; mean `auroc` of findings."""
    if "findings" in external:
        name, found = "auroc", external["findings"]["mean"]
    else:
        name, found = ("dice", external["segmentation"]) if "segmentation" in external else ("mcc", external)
    value = found[name]["value"]
    return {} if value is None else {name: float(value)}


def with_pictures(
    plan: RunPlan, trained: TrainedModel, patients: SiteData, entries: list[dict[str, Any]], calibrated: Calibrated | None
) -> list[dict[str, Any]]:
    """The report's patients, some with a picture: of hospitals whose policy lets them be shown. It shows evidence for a class."""
    if not plan.config.task.exclusive:
        return entries
    allowed = may_be_shown(plan.data, plan.external, patients)
    probabilities = np.array([entry["probabilities"] for entry in entries])
    scaling = calibrated.calibration.scaling if calibrated else UNSCALED
    names = draw_pictures(plan.out, trained, patients, probabilities, allowed, scaling=scaling)
    return [{**entry, "picture": names[row]} if row in names else entry for row, entry in enumerate(entries)]


def took_part(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the sites whose update went into any round."""
    return sorted({site for line in rounds for site in line["sites"]})


def data_hashes(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """By site, the keyed hashes of what it trained on, each by the first round with it: more than one means that data changed."""
    found: dict[str, dict[str, str]] = {}
    for line in rounds:
        for site, data in line.get("data", {}).items():
            known = found.setdefault(site, {})
            if data not in list(known.values())[-1:]:
                known[f"from round {line['round']}"] = data
    return found


def model_metadata(config: RunConfig, model: MultiModalViT) -> dict[str, str]:
    """A model file's metadata; without time or place, so that equal runs give equal bytes."""
    return {
        "backbone": model.backbone_name,
        "backbone_sha256": model.backbone_sha256,
        "classes": json.dumps(list(config.task.classes)),
        "config": config.to_json(),
    }


def _look(number: int, trained: TrainedModel, patients: SiteData) -> MetricRecord | None:
    """Measure on the external hospital, every `evaluation.every` rounds; for information only, no choice is made by it."""
    every = trained.config.evaluation.every
    if not every or number % every or is_undecided(trained.config, number):
        return None
    return MetricRecord(dict(measure_round(trained, patients)))


def _open(plan: RunPlan, round_: RoundSoFar) -> None:
    """Before requests go out: sites may spend on them, whatever comes of the round."""
    require_in_place(plan.out)
    write_open(plan.out, round_.number, round_.trained, round_.redone)


def _keep(run_log: RunLog, plan: RunPlan, model: MultiModalViT, number: int, arrays: Arrays, strategy: FedMRIAvg) -> None:
    """After a round: first the checkpoint, then the event and the line that say the round is done."""
    require_in_place(plan.out)
    save_checkpoint(plan.out, Checkpoint(number, arrays, model_metadata(plan.config, model), strategy.state))
    run_log.write(strategy.progress.kept(number))
    if said := told_after(plan.config, arrays, number):
        log(WARNING, "%s", said)
    close_round(plan.out)
