"""One run at the server, from the run configuration to the report; `server.app` only hands it Flower's grid."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR, INFO
from pathlib import Path
from typing import Any

from flwr.app import MetricRecord
from flwr.serverapp import Grid
from flwr.supercore import log

from common.cli import config_path
from common.config import RunConfig, load_config
from common.data.cache import default_cache
from common.data.dataset import SiteData
from common.data.site import find_sites
from common.errors import ConfigError, FederationError, FedMRIError
from common.files import write_atomic
from common.models.arrays import Arrays, get_arrays, save_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.protocol import Task, code_hash, pack_arrays, printable, unpack_arrays
from common.training.trained import most_trained
from server.checkpoint import Checkpoint, RunLog, as_line, read_rounds, save_checkpoint
from server.external import measure_final, measure_round, open_external
from server.privacy import aggregation_claims, privacy_claims
from server.report import assemble, write_report
from server.rounds import RoundRecord
from server.strategy import FedMRIAvg
from server.strategy_secure import SecureAvg

ERROR_NAME, MODEL_NAME = "error.json", "model.safetensors"


@dataclass(frozen=True)
class RunPlan:
    """A run's settings, read and checked."""

    config: RunConfig
    data: Path  # folder of the site folders
    sites: tuple[str, ...]  # training sites, sorted
    external: tuple[str, ...]  # held-out sites
    out: Path
    cache: Path


def run_folder(run_config: Mapping[str, Any], run_id: int) -> Path:
    """Where the run's results go: `out`, or a folder of its own under the cache."""
    out = str(run_config.get("out", ""))
    return Path(out).expanduser() if out else default_cache() / "runs" / str(run_id)


def read_plan(run_config: Mapping[str, Any], out: Path) -> RunPlan:
    """Read Flower's run configuration (the keys of `[tool.flwr.app.config]`).

    Raises:
        ConfigError: a wrong setting, no training site, or an external site that is not there.
        FederationError: this is not the code that was started, or `out` already holds a run.
    """
    expected = str(run_config.get("code", ""))
    if expected and expected != code_hash():
        raise FederationError(
            f"Flower runs other code ({code_hash()[:12]}) than the one that started the run ({expected[:12]}). "
            "Use a SuperLink of its own, started in an empty directory."
        )
    require_fresh(out)
    cache = Path(str(run_config.get("cache", "")) or default_cache()).expanduser()
    data = Path(str(run_config.get("data", "")) or default_cache() / "example").expanduser()
    config = load_config(config_path(str(run_config.get("config", "demo"))), _settings(str(run_config.get("set", "[]"))))
    external = split_external(str(run_config.get("external", "")) or "external")
    return RunPlan(config, data, training_sites(data, external), external, out, cache)


def split_external(text: str) -> tuple[str, ...]:
    """Names of external sites joined by `+`."""
    return tuple(name.strip() for name in text.split("+") if name.strip())


def training_sites(data: Path, external: tuple[str, ...]) -> tuple[str, ...]:
    """All sites under `data` but the external ones, sorted by name.

    Raises:
        ConfigError: no such folder, an external site that is not in it, or nobody left to train.
    """
    names = sorted(folder.name for folder in find_sites(data))
    known = ", ".join(names) or "none; a site folder holds sub-* folders, participants.tsv or site.toml"
    absent = [name for name in external if name not in names]
    if absent:
        raise ConfigError(f"External site {absent[0]!r} is not among the site folders of {data} ({known}).")
    sites = tuple(name for name in names if name not in external)
    if not sites:
        raise ConfigError(f"No training site in {data}: its site folders are {known}, the external one included.")
    return sites


def require_fresh(out: Path) -> None:
    """Refuse a folder in which a run has been: its rounds and the new ones would be one muddle.

    Raises:
        FederationError: it holds a report, a model or rounds.
    """
    found = [name for name in ("report.json", MODEL_NAME, "rounds.jsonl", "checkpoints") if (out / name).exists()]
    if found:
        raise FederationError(f"Run folder {out} already holds a run ({found[0]}). Name another folder, or remove this one.")


@contextmanager
def leave_error(out: Path) -> Iterator[None]:
    """Whatever ends the run, its sentence is left in RUN/error.json: Flower itself keeps none."""
    try:
        yield
    except Exception as error:
        log(ERROR, "The run ended with an error.", exc_info=error)
        text = str(error) if isinstance(error, FedMRIError) else f"{type(error).__name__}: {printable(str(error), 300)}"
        write_atomic(out / ERROR_NAME, json.dumps({"error": text}).encode())
        raise


def federate(grid: Grid, plan: RunPlan) -> None:
    """Train all rounds, measure, and leave the run folder whole; `report.json` comes last and marks success.

    Raises:
        FedMRIError: what a user can mend: too few sites, external data or weights that cannot be used.
    """
    config = plan.config
    log(INFO, "Opening the external site %s", "+".join(plan.external))
    patients = open_external(plan.data, plan.external, config.data, plan.cache)
    model = build_model(config)
    start = get_arrays(model)
    task = site_task(plan, model)
    strategy = (
        SecureAvg(config, task, start, plan.sites)
        if config.secure.enabled
        else FedMRIAvg(config.federation, task, start, plan.sites, config)
    )
    with RunLog(plan.out) as run_log:
        result = strategy.start(
            grid,
            pack_arrays(start),
            config.federation.rounds,
            config.federation.round_timeout,
            evaluate_fn=lambda number, arrays: _look(number, unpack_arrays(arrays, start), model, patients, config),
            on_round=lambda record, arrays: _keep(run_log, plan, model, record, arrays),
        )
    unfinished = [as_line(strategy.unfinished)] if strategy.unfinished else []
    finish(plan, model, unpack_arrays(result.arrays, start), patients, unfinished)


def site_task(plan: RunPlan, model: MultiModalViT) -> Task:
    """What every site is told in every round."""
    run = secrets.token_hex(8)  # by chance: a ledger must tell two runs of one configuration apart
    return Task(1, plan.config.to_json(), code_hash(), model.backbone_sha256, run, data=str(plan.data), cache=str(plan.cache))


def finish(
    plan: RunPlan, model: MultiModalViT, arrays: Arrays, patients: SiteData, unfinished: Sequence[dict[str, Any]] = ()
) -> None:
    """Write the last round's model, measure it, write the report.

    Args:
        unfinished: a round that gave no model, as a line of rounds.jsonl: what sites spent on it is spent.
    """
    save_arrays(plan.out / MODEL_NAME, arrays, model_metadata(plan.config, model))
    final = measure_final(model, arrays, patients, plan.config)
    provenance = {
        "config": json.loads(plan.config.to_json()),
        "backbone": model.backbone_name,
        "weights_sha256": model.backbone_sha256,
        "code": code_hash(),
        "data": {"folder": str(plan.data), "sites": list(plan.sites), "external_key": patients.key},
        "external": "+".join(plan.external),
    }
    rounds = read_rounds(plan.out)
    write_report(
        plan.out,
        assemble(
            final.external,
            final.patients,
            rounds,
            provenance,
            modality_subsets=final.modality_subsets,
            privacy=privacy_claims(plan.config, [*rounds, *unfinished]),
            aggregation=aggregation_claims(plan.config, rounds, most_trained(arrays, plan.config)),
        ),
    )
    log(INFO, "Report: %s", plan.out / "report.html")


def model_metadata(config: RunConfig, model: MultiModalViT) -> dict[str, str]:
    """What a model file says of itself; nothing of when or where, so that equal runs give equal bytes."""
    return {
        "backbone": model.backbone_name,
        "backbone_sha256": model.backbone_sha256,
        "classes": json.dumps(list(config.data.classes)),
        "config": config.to_json(),
    }


def _settings(text: str) -> tuple[str, ...]:
    """The `key=value` settings, which travel as a JSON list because Flower's run configuration is flat."""
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, list) or not all(isinstance(item, str) for item in settings):
        raise ConfigError(f"Run configuration key 'set': expected a JSON list of \"key=value\" texts, got {text!r}.")
    return tuple(settings)


def _look(number: int, arrays: Arrays, model: MultiModalViT, patients: SiteData, config: RunConfig) -> MetricRecord | None:
    """The external curve, every `evaluation.every` rounds; for looking, it chooses nothing."""
    every = config.evaluation.every
    if not every or number % every:
        return None
    return MetricRecord(dict(measure_round(model, arrays, patients, config)))


def _keep(run_log: RunLog, plan: RunPlan, model: MultiModalViT, record: RoundRecord, arrays: Arrays) -> None:
    """After a round: first the checkpoint, then the line that says the round is done."""
    save_checkpoint(plan.out, Checkpoint(record.round, arrays, model_metadata(plan.config, model)))
    run_log.write(record)
