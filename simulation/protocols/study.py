"""A study of a backbone: read all patients, run it, let every protocol answer for the external hospital once."""

import json
import time
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config.classes import require_classes
from common.config.run import RunConfig
from common.config.site import read_policy
from common.data.dataset import SiteData
from common.errors import DataError, FederationError
from common.files import write_atomic
from common.messages.code_version import code_hash
from common.models.backbones.licence import weights_licence
from common.models.build import build_model
from simulation.baselines import open_folders, probabilities_json, split_folders
from simulation.experiment import Note, Progress, prepare
from simulation.experiment_plan import Experiment
from simulation.processes import as_they_end
from simulation.protocols.figure import figure
from simulation.protocols.finished import Finished
from simulation.protocols.inputs import TOKENS, Input, all_inputs, channels_of
from simulation.protocols.measures import measured
from simulation.protocols.protocol import Answer, Floats, FrozenProtocol, Training
from simulation.protocols.table import markdown
from simulation.protocols.tuned import MEGABYTE, TUNED, Job, Tuning, peak_megabytes, run_tuned

TABLE, JSON, ANSWERS, FIGURE = "protocols.md", "protocols.json", "answers.json", "protocols.svg"
WORKERS = 2


@dataclass(frozen=True, eq=False)
class Asked:
    """What all protocols of a study are given beside features.

    Attributes:
        labels: of the labelled training patients of each site.
        least: `policy.min_patients` of each site.
        external: labels of the external patients [Q], below 0: none.
        config: task, bootstrap and seed are read.
    """

    labels: tuple[NDArray[np.int64], ...]
    least: tuple[int, ...]
    external: NDArray[np.int64]
    config: RunConfig


def require_fit(config: RunConfig, fusion: Sequence[str]) -> tuple[int, ...]:
    """The channels of early fusion; empty: none.

    Raises:
        ConfigError: `fusion` names no three modalities of the run, or the run predicts no class.
    """
    require_classes(config, "A protocol")
    return channels_of(fusion, config.data.modalities)


def run_study(
    plan: Experiment,
    protocols: Sequence[FrozenProtocol],
    fusion: Sequence[str],
    note: Note,
    progress: Progress,
    tuned: Sequence[str] = (),
    tuning: Tuning | None = None,
) -> dict[str, Any]:
    """Do it all, and write `TABLE`, `JSON`, `ANSWERS` and `FIGURE` into the folder.

    Training patients are those who train in the federation of this configuration: whom it holds back takes no part.

    Args:
        plan: sites, external hospital, configuration and folder.
        protocols: to run, each on every kind of features.
        fusion: the three modalities of early fusion; empty: the default.
        note: called with each sentence that the user should read now.
        progress: called with how far it is.
        tuned: names in `TUNED`, which train on multi-modality tokens.
        tuning: how they train; None: as by default.

    Returns:
        What `JSON` holds.

    Raises:
        ConfigError: `fusion` names no three modalities of the run, or the run segments.
        DataError: patients that cannot be read, no two classes among those who train, or no label at the external hospital.
        FederationError: the folder holds a study already.
    """
    channels = require_fit(plan.config, fusion)
    require_none(plan.out)
    plan, refused, twins = prepare(plan, note, progress)
    if not channels:
        note("No early fusion: it takes three modalities.")
    parts = {name: _labelled(plan, name) for name in plan.sites if name not in refused}
    found = {name: training for name, (training, _) in parts.items()}
    training = {name: patients for name, patients in found.items() if len(patients)}
    if not training:
        raise DataError(f"No training patient of {', '.join(found)} has a label: nothing can be learned from their features.")
    external = open_folders([plan.data / name for name in plan.external], plan.config, plan.cache)
    _require_measurable(external, training, plan.config)
    model = build_model(plan.config)
    inputs = all_inputs(model, [*training.values(), external], plan.config, channels)
    least = tuple(read_policy(plan.data / name, simulated=True).min_patients for name in training)
    asked = Asked(tuple(patients.labels for patients in training.values()), least, external.labels, plan.config)
    rows, answers = run_protocols(protocols, inputs, asked, progress)
    jobs = tuned_jobs(plan, list(training), tuned, tuning or Tuning())
    finished = Finished(plan.out, [*training.values(), external])
    if finished.stale(jobs):
        note(f"What was trained in {plan.out} before is of other settings, patients or code: it is done anew.")
    more, said = tuned_rows(jobs, asked, progress, finished)
    rows, answers = rows + more, answers | said
    table = {
        "training": {name: len(patients) for name, patients in training.items()},
        "held_back": sum(held for _, held in parts.values()),
        "external": "+".join(plan.external),
        "n": len(external.labelled),
        "classes": list(plan.config.task.classes),
        "seed": plan.config.seed,
        "backbone": model.backbone_name,
        "backbone_sha256": model.backbone_sha256,
        "weights_licence": weights_licence(plan.config.model),
        "code": code_hash(),
        "inputs": [{"name": one.name, "width": one.sites[0].shape[1], "seconds": one.seconds} for one in inputs],
        "rows": rows,
        "peak_megabytes": peak_megabytes(),
        "twins": twins,
    }
    _write(plan.out, table, probabilities_json(external.ids, answers))
    finished.forget()
    return table


def _write(out: Path, table: Mapping[str, Any], answers: bytes) -> None:
    """The study's files; `JSON`, which marks it whole, comes last."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / ANSWERS, answers)
    write_atomic(out / TABLE, markdown(table).encode())
    write_atomic(out / FIGURE, figure(table))
    write_atomic(out / JSON, (json.dumps(table, indent=1) + "\n").encode())


def run_protocols(
    protocols: Sequence[FrozenProtocol], inputs: Sequence[Input], asked: Asked, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, Floats]]:
    """Every protocol on every kind of features.

    Draws and folds depend on the seed and the protocol alone, so that all kinds of features see the same patients.

    Args:
        protocols: to run.
        inputs: features of the labelled training patients of each site, and of the external patients last.
        asked: labels and settings.
        progress: called with how far it is.

    Returns:
        Rows of the table; and probabilities [Q, C] by `input / protocol`, of several draws their mean.
    """
    rows, answers, done = list[dict[str, Any]](), dict[str, Floats](), 0
    for given in inputs:
        training = _training(given, asked)
        for protocol in protocols:
            drawn_as = getattr(protocol, "drawn_as", protocol.name)
            seed = [asked.config.seed, zlib.crc32(drawn_as.encode())]
            row = {"input": given.name, "protocol": protocol.name}
            rows.append(row | _answered(protocol, training, given.sites[-1], asked, seed, answers, " / ".join(row.values())))
            done += 1
            progress("protocols", done, len(inputs) * len(protocols))
    return rows, answers


def _answered(
    protocol: FrozenProtocol,
    training: Training,
    external: Floats,
    asked: Asked,
    seed: list[int],
    answers: dict[str, Floats],
    name: str,
) -> dict[str, Any]:
    """One row; `why` where the protocol cannot be run on these patients."""
    tracemalloc.start()
    started = time.process_time()
    try:
        answer = protocol.answer(training, external, np.random.default_rng(seed))
        seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    except DataError as error:
        return {"why": str(error), "told": ""}
    finally:
        tracemalloc.stop()
    answers[name] = answer.probabilities.mean(0)
    return measured_row(answer, asked, seconds, peak / MEGABYTE)


def tuned_jobs(plan: Experiment, training: Sequence[str], tuned: Sequence[str], tuning: Tuning) -> list[Job]:
    """The protocols that train, the one of most work first.

    Args:
        plan: of the study.
        training: names of the sites with labels.
        tuned: names in `TUNED`.
        tuning: how they train.
    """
    folders = tuple(plan.data / name for name in training), tuple(plan.data / name for name in plan.external)
    order = [name for name in reversed(TUNED) if name in tuned]
    return [Job(name, plan.config.to_json(), tuning, *folders, plan.cache) for name in order]


def tuned_rows(
    jobs: Sequence[Job], asked: Asked, progress: Progress, finished: Finished
) -> tuple[list[dict[str, Any]], dict[str, Floats]]:
    """Rows and answers as `run_protocols`; two processes at once, for their seconds are of one thread each.

    Args:
        jobs: to do, but for those that `finished` holds.
        asked: labels and settings.
        progress: called with how far it is.
        finished: is given each answer as soon as it is there.
    """
    found = {job.name: kept for job in jobs if (kept := finished.read(job)) is not None}
    waiting = [job for job in jobs if job.name not in found]
    if jobs:
        progress("training", len(found), len(jobs))
    with closing(as_they_end(run_tuned, waiting, WORKERS)) as ended:
        for job, tuned in ended:
            finished.keep(job, tuned)
            found[job.name] = tuned
            progress("training", len(found), len(jobs))
    rows, answers = list[dict[str, Any]](), dict[str, Floats]()
    for name in (name for name in TUNED if name in found):
        row, tuned = {"input": TOKENS, "protocol": TUNED[name][0]}, found[name]
        if tuned.answer is None:
            rows.append(row | {"why": tuned.why, "told": ""})
            continue
        answers[" / ".join(row.values())] = tuned.answer.probabilities.mean(0)
        rows.append(row | measured_row(tuned.answer, asked, tuned.seconds, tuned.peak_megabytes))
    return rows, answers


def measured_row(answer: Answer, asked: Asked, seconds: float, megabytes: float) -> dict[str, Any]:
    """An answer's part of its row."""
    resamples = np.random.default_rng(asked.config.seed)  # the same ones for all rows
    found = measured(asked.external, answer.probabilities, bootstrap=asked.config.evaluation.bootstrap, generator=resamples)
    return {
        "why": "",
        "measures": found,
        "draws": len(answer.probabilities),
        "parameters": answer.parameters,
        "seconds": seconds,
        "peak_megabytes": megabytes,
        "chosen": answer.chosen,
        "told": answer.told,
    }


def require_none(out: Path) -> None:
    """Refuse a folder that holds a study: the external hospital answers once.

    Raises:
        FederationError: it does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise FederationError(f"--out {out}: expected a folder, or a name that is not taken; it is a file. Name another.")
    if (out / JSON).exists():
        raise FederationError(f"--out {out} already holds a study ({JSON}). Name another folder.")


def _require_measurable(external: SiteData, training: Mapping[str, SiteData], config: RunConfig) -> None:
    """Before anything is computed.

    Raises:
        DataError: nobody external has a label, or those who train are all of one class.
    """
    if not len(external.labelled):
        raise DataError(f"No patient of {external.name} has a label: nothing can be measured there. Name another external site.")
    known = sorted({int(label) for patients in training.values() for label in patients.labels})
    if len(known) < 2:
        said = config.task.classes[known[0]]
        raise DataError(f"All labelled training patients of {', '.join(training)} are {said}: there is nothing to tell apart.")


def _labelled(plan: Experiment, name: str) -> tuple[SiteData, int]:
    """The labelled patients of a site who train, and how many labelled ones it holds back."""
    patients, held = split_folders([plan.data / name], plan.config, plan.cache)
    return patients.select(patients.labelled), len(held.labelled)


def _training(given: Input, asked: Asked) -> Training:
    """The training sites' patients as one table; the last group of features is the external hospital's."""
    sites = np.concatenate([np.full(len(labels), number, np.int64) for number, labels in enumerate(asked.labels)])
    x, y = np.concatenate(given.sites[:-1]), np.concatenate(asked.labels)
    return Training(x, y, len(asked.config.task.classes), sites, asked.least)
