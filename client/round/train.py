"""One round at a site: reads the request, checks what server and site must agree on, trains on the site's patients.

Runs without Flower's runtime: a request's content goes in, a reply's content comes out.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from flwr.app import RecordDict

from client.policy.asking import require_hours
from client.privacy.budget import Budget, open_budget, require_open, site_budget
from client.round.left_out import require_unrefused, without_twins
from client.round.newcomers import compare_newcomers
from client.round.own_arrays import keep_own, own_after
from client.round.own_randomness import own_patients, own_seed
from client.round.site_context import SiteContext, home_folder
from client.round.site_memory import memory_folder, recall, remember
from client.round.trained_on import note_trained
from common.aggregation.scaffold import Scaffold
from common.config.run import RunConfig, config_from_json
from common.config.site import SitePolicy, read_policy, read_site_config
from common.data.cache import open_site
from common.data.cases import Site, read_site
from common.data.dataset import SiteData
from common.data.forgetting import forget_gone
from common.data.holdout import split
from common.data.lesions import with_lesions
from common.errors import ConfigError, FederationError, FedMRIError, WeightsError
from common.messages.code_version import code_hash
from common.messages.round import ARRAYS, SiteReply, Task, unpack_arrays
from common.messages.secure_aggregation import request_hash
from common.messages.update import Update
from common.messages.weights import LACKING
from common.messages.wire import FLOAT32, WIRES, with_feedback
from common.models.arrays import Arrays, arrays_sha256, get_arrays
from common.models.backbones.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER
from common.models.backbones.kept_weights import kept_file
from common.models.backbones.weights import WITHOUT_FILE
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy.charge import Charge
from common.secure.fixed_point import UNCOUNTABLE, FixedPoint
from common.training.personal import personal_round
from common.training.scaffold import LastRound, drift
from common.training.shared import first_personal_round, shared
from common.training.trainable import unlabelled_weight

logger = logging.getLogger("fedmri.client")


class Prepared(NamedTuple):
    """A site and its slices."""

    site: Site
    training: SiteData
    held: SiteData  # never trains; empty where the run holds nobody back


def train_site(content: RecordDict, task: Task, context: SiteContext, *, sealed: bytes | None = None) -> tuple[SiteReply, Site]:
    """Train one round on the site's patients.

    Args:
        content: the request, with the global arrays.
        task: what the request's configuration record says.
        context: the site's folder, and the cache for its slices.
        sealed: in a secure round, hash of the request that all its sites have agreed on; the update will leave masked.

    Returns:
        The reply with all that the site knows (`client.policy` takes out what the hospital keeps), and the site.

    Raises:
        FederationError: other code than the server's, or arrays that do not fit the model.
        WeightsError: other backbone weights than the server's.
        DataError, ConfigError: the site's folder or the run configuration is refused.
    """
    began = time.monotonic()
    model, config, arrays = agreed_model(content, task, context)
    if sealed is not None and request_hash(task, arrays) != sealed:
        raise FederationError("Secure aggregation refused: the request to train is not the one that the round began with.")
    site, patients, _ = prepared_patients(context, config, task.run, read_all=True)
    require_hours(site.config.policy, datetime.now().astimezone())
    _require_agreed_way(site.config.policy, config, secure=sealed is not None)
    rank = own_rank(site.config.policy, config)
    first = {"initial_sha256": arrays_sha256(arrays)} if task.round == 1 else {}
    require_pinned(site.config.policy, {"backbone_sha256": model.backbone_sha256, **first})
    told = SiteReply(context.name, task.round, patients=len(patients), labelled=len(patients.labelled), counts_shared=True)
    if sealed is not None and not config.site_level.enabled:  # refused before any budget is charged
        _require_weight(told.weight(unlabelled_weight(config, task.round)), config)
    seed = site_seed(config.seed, context.name, task.round)
    if site.config.policy.secure_only and not context.simulated:
        seed = own_seed()
        patients = patients if config.privacy.enabled else own_patients(patients)  # a private round draws its own
    data, epsilon, own = note_trained(context, task, patients), -1.0, Arrays()
    if config.privacy.enabled:
        from common.training.private import private_round  # noqa: PLC0415  Opacus is a third of a process' start

        budget = prepared_budget(context, site, task.run)

        def charge(cost: Charge) -> None:
            nonlocal epsilon
            budget.charge(cost, task.run)
            epsilon = budget.run_epsilon(task.run, config.privacy.delta)

        update = private_round(model, arrays, patients, config, round_number=task.round, site_seed=seed, charge=charge, rank=rank)
    else:
        require_open(context.name, site.config.privacy)
        correction = site_drift(context, task, config, arrays)
        before = own_arrays(context, task.run, config, arrays, task.round - 1)
        update, own = personal_round(
            model, arrays, before, patients, config, round_number=task.round, site_seed=seed, drift=correction, rank=rank
        )
    metrics = update.metrics | {"seconds": time.monotonic() - began}
    sent = shared(arrays, config, task.round)
    change = _rounded(Update.between(update.arrays, sent), context, task, config)
    if isinstance(config.federation.strategy, Scaffold):
        remember(_memory(context, task.run), task.round, LastRound(sent, change.change))
    if own:
        keep_own(_memory(context, task.run, "personal"), task.round, own)
    return replace(told, update=change, epsilon=epsilon, metrics=metrics, data=data), site


def _rounded(change: Update, context: SiteContext, task: Task, config: RunConfig) -> Update:
    """The change as it arrives, with what was lost of earlier ones; what is lost of it is kept for the next."""
    wire, folder = WIRES[config.federation.wire], _memory(context, task.run, "feedback")
    if wire is FLOAT32:
        return change
    sent, left = with_feedback(change.change, own_after(folder, task.round - 1, change.change), wire)
    keep_own(folder, task.round, left)
    return Update(sent)


def _require_weight(weight: float, config: RunConfig) -> None:
    """Refuse to stand in a sum without a weight: it would be a sum of fewer than the others believe.

    Raises:
        FederationError: the weight is 0, or counts as 0.
    """
    if not FixedPoint.for_sites(2, 1.0, config.secure.max_weight).share(min(weight, config.secure.max_weight)):
        raise FederationError(
            f"The site's weight in the round is {weight:g}: its update would hide nobody else's in the sum. A site whose "
            "patients have no label needs federation.unlabelled_weight above 0.",
            public=UNCOUNTABLE,
        )


def site_drift(context: SiteContext, task: Task, config: RunConfig, arrays: Arrays) -> Arrays | None:
    """What SCAFFOLD corrects this round by; None in other runs, and where the site was not in the round before."""
    if not isinstance(config.federation.strategy, Scaffold):
        return None
    last = recall(_memory(context, task.run), task.round - 1, shared(arrays, config, task.round - 1))
    return drift(last, arrays, config, task.round) if last else None


def own_arrays(context: SiteContext, run: str, config: RunConfig, arrays: Arrays, last: int) -> Arrays:
    """The site's own arrays after round `last`; {} where it has none.

    Args:
        context: the site.
        run: what the coordinator calls it.
        config: of the run.
        arrays: global ones, which its own must resemble.
        last: number of the round.
    """
    if not config.personal.on or last < first_personal_round(config):
        return {}
    return own_after(_memory(context, run, "personal"), last, arrays)


def _memory(context: SiteContext, run: str, kind: str = "scaffold") -> Path:
    """A hospital's lies beside its ledger; a virtual site's in the cache."""
    if context.simulated:
        return memory_folder(context.cache, f"{run}/{context.name}", kind)
    return memory_folder(home_folder(context), run, kind)


def agreed_model(content: RecordDict, task: Task, context: SiteContext) -> tuple[MultiModalViT, RunConfig, Arrays]:
    """The model, configuration and arrays of a request, once code, backbone and way of sending agree; errors as `train_site`."""
    if context.simulated:  # several virtual sites share the machine, and the order of sums stays the same
        torch.set_num_threads(1)
    require_same_code(task)
    model, config = prepared_model(task.config, own_weights(context, config_from_json(task.config), task.backbone))
    _require_same_backbone(task, model)
    return model, config, unpack_arrays(content.array_records[ARRAYS], get_arrays(model))


def site_seed(seed: int, site: str, round_number: int) -> int:
    """The site's own random seed for one round, 0 to 2^31 - 1: the same in every run of one configuration."""
    digest = hashlib.sha256(f"{seed}/{site}/{round_number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@lru_cache(maxsize=1)
def prepared_model(config_json: str, weights: str = "") -> tuple[MultiModalViT, RunConfig]:
    """The model of a configuration, built once a process: its trained arrays are overwritten in every round.

    Args:
        config_json: of `RunConfig.to_json`.
        weights: the site's own file of the backbone; "": what the configuration says.
    """
    config = config_from_json(config_json)
    if weights:
        config = replace(config, model=replace(config.model, weights=weights))
    return build_model(config, public="wire"), config


def own_weights(context: SiteContext, config: RunConfig, sha256: str) -> str:
    """The hospital's file of a run's frozen weights: the one that it keeps under their hash, else that of `connection.weights`.

    Args:
        context: the site.
        config: the run; weights from a hub, or drawn, need no file.
        sha256: of the weights that the run asks for; "": not known.

    Returns:
        A path; "" where the configuration itself says where they come from.

    Raises:
        WeightsError: there is no such file at the site.
    """
    if context.simulated:
        return ""
    home = home_folder(context)
    if file := kept_file(home / WEIGHTS_FOLDER, sha256):
        return str(file)
    if named := read_site_config(context.folder).connection.weights:
        return str(home / Path(named).expanduser())
    if config.model.weights in WITHOUT_FILE:
        return ""
    raise WeightsError(
        f"The run's backbone weights ({config.model.weights}, SHA-256 {sha256 or 'not known here'}) are not among those kept in "
        f"{home / WEIGHTS_FOLDER}. Ask the coordinator for the file, then: fedmri-site weights add {home} FILE",
        public=LACKING,
    )


def prepared_patients(context: SiteContext, config: RunConfig, run: str = "", *, read_all: bool = False) -> Prepared:
    """The site and its slices, without those who take no part in this run (`client.round.left_out`).

    A hospital that is about to train reads and hashes every file (`read_all`), for its own record and its audit log.

    In simulation both are kept for the life of the process, and so is a refusal: a run of twenty rounds must not read a broken
    site's volumes twenty times. A hospital reads its folder anew in each round.
    """
    if not context.simulated:
        return _open(context, config, run, read_all=read_all)
    found = _simulated_patients(context, config, run)
    if isinstance(found, FedMRIError):
        raise found
    return found


def prepared_budget(context: SiteContext, site: Site, run: str) -> Budget:
    """The site's budget. A hospital's ledger lies beside its site.toml; virtual sites begin a new one in every run."""
    if not context.simulated:
        return site_budget(site, context.folder)
    path = context.cache / "ledgers" / (Path(run).name or "run") / f"{context.name}.jsonl"
    return open_budget(site, site.config.privacy, path, context.cache)


@lru_cache(maxsize=256)
def _simulated_patients(context: SiteContext, config: RunConfig, run: str) -> Prepared | FedMRIError:
    """Open once; an error is a result, so that it is remembered too."""
    try:
        return _open(context, config, run)
    except FedMRIError as error:
        return error


def _open(context: SiteContext, config: RunConfig, run: str, *, read_all: bool = False) -> Prepared:
    """Read the folder, build the slice cache where it is absent. One worker: other sites use the other cores."""
    site = read_site(context.folder, config, simulated=context.simulated)
    compare_newcomers(site, config, context, run)
    site = without_twins(site, context, run)
    patients = open_site(site, config.data, context.cache, workers=1 if context.simulated else None, read_all=read_all)
    if not context.simulated and (lost := forget_gone(context.cache, site.root, site.cases, patients.key)):
        logger.warning(
            "Site %s: the slice cache has let go of %d entries with patients who are gone or changed.", site.name, lost
        )
    for name in patients.known_of_nobody([covariate.name for covariate in config.data.covariates]):
        logger.warning("Site %s: %s is known of no patient here; the run's model may take it (data.covariates).", site.name, name)
    if config.reads_masks:
        patients = with_lesions(patients, site, config.data, context.cache)
    return Prepared(site.only(patients.ids), *split(patients, config.evaluation.holdout))


def require_same_code(task: Task) -> None:
    """Refuse to train with other code than the server's."""
    if task.code != code_hash():
        text = f"server {task.code[:12]}, site {code_hash()[:12]}"
        raise FederationError(
            f"The site's code is not the server's ({text}). Install the same version of FedMRI on both.",
            public=f"the site's code is not the server's ({text})",
            rule="code",
        )


def _require_same_backbone(task: Task, model: MultiModalViT) -> None:
    """Refuse to train on other backbone weights than the server's: the adapters would mean something else."""
    if task.backbone != model.backbone_sha256:
        text = f"SHA-256: server {task.backbone[:12]}, site {model.backbone_sha256[:12]}"
        raise WeightsError(
            f"The site's backbone weights are not the server's ({text}). Fetch the agreed file.",
            public=f"the site's backbone weights are not the agreed ones ({text})",
        )


def _require_agreed_way(policy: SitePolicy, config: RunConfig, *, secure: bool) -> None:
    """Refuse a plain update where the hospital or the run's configuration requires a masked one, and the other way round."""
    if policy.secure_only and not secure:
        raise ConfigError(
            "policy.secure_only is set in site.toml, and the run is a plain one. Ask for secure.enabled in its settings.",
            public="the site takes part in secure aggregation only",
            rule="policy.secure_only",
        )
    if config.secure.enabled != secure:
        raise FederationError("The request is not of the kind (plain or secure) that the run's configuration requires.")


def require_wanted_run(context: SiteContext, task: Task, config: RunConfig) -> None:
    """Refuse at a secure round's first stage, without a patient, what the policy would refuse at its third.

    Raises:
        ConfigError, WeightsError, PolicyError, PrivacyError: as `train_site`.
    """
    policy = read_policy(context.folder, simulated=context.simulated)
    _require_agreed_way(policy, config, secure=True)
    own_rank(policy, config)
    require_pinned(policy, {"backbone_sha256": task.backbone})
    require_unrefused(context, task.run)


def own_rank(policy: SitePolicy, config: RunConfig) -> int:
    """The rank that the site trains; 0: the run's.

    Raises:
        ConfigError: `policy.max_rank` is smaller than the run's, which lets no ranks differ.
    """
    rank, most = getattr(config.model.adapter, "rank", 0), policy.max_rank  # not all adapters have one
    if not most or rank <= most:
        return 0
    if not config.federation.low_rank.ranks_differ:
        raise ConfigError(
            f"policy.max_rank of site.toml is {most}, the run's adapter has rank {rank}, and federation.low_rank = "
            f'"{config.federation.low_rank.name}" needs one rank at all sites. Ask the coordinator for "svd".',
            public=f"the site trains adapters of rank {most} at most, and the run does not let ranks differ",
            rule="policy.max_rank",
        )
    return most


def require_pinned(policy: SitePolicy, found: Mapping[str, str]) -> None:
    """Refuse a backbone, or a start of training, that the hospital did not agree to.

    Args:
        policy: the pins; "": any.
        found: hashes by the policy's names, `backbone_sha256` and `initial_sha256`.

    Raises:
        WeightsError: one is not the pinned one.
    """
    for name, sha256 in found.items():
        pinned = getattr(policy, name)
        if pinned and pinned != sha256:
            text = f"pinned {pinned[:12]}, got {sha256[:12]}"
            raise WeightsError(
                f"policy.{name} of site.toml does not fit the run ({text}). Ask the coordinator what has changed.",
                public=f"the run is not the one that the site pinned ({name})",
                rule=f"policy.{name}",
            )
