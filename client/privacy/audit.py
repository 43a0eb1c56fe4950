"""`fedmri-site audit privacy`: tests the privacy claim on the site's own patients, with the code that trains."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from client.privacy.canary_round import canary_round
from client.privacy.round_audit import check_rounds
from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.errors import DataError
from common.models.arrays import check_arrays, get_arrays, load_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.models.without_compiler import without_compiler
from common.privacy.accounting import noise_for
from common.privacy.audit import CanaryAudit, Check, noise_checks, removal_check, sampling_check, the_optimizer
from common.privacy.charge import Charge
from common.privacy.noise import system_sample
from common.training.device import place
from common.training.predict import predict
from common.training.private_probing import embed_patients, head_gradients
from common.training.private_views import Example, draw_example, patient_gradients
from common.training.round import first_point
from common.training.trainable import is_head_round

PROBED = 6  # patients whose removal is tried
CANARY_EPSILON = 1.5  # audited at an epsilon where canaries can tell; training's own may be too high for that
CANARY_DELTA = 1e-5
CANARY_STEPS, CANARY_RATE = 200, 0.1


@dataclass(frozen=True)
class PrivacyAudit:
    """The result of a privacy audit.

    Attributes:
        checks: exact tests.
        canary: the one-run audit of sampling, clipping and noise.
        membership_auc: how well losses tell the site's patients from others (0.5: not at all); None without a model and others.
    """

    checks: tuple[Check, ...]
    canary: CanaryAudit
    membership_auc: float | None

    @property
    def passed(self) -> bool:
        """Whether no check refutes the claim, which does not prove it."""
        return all(check.passed for check in self.checks) and self.canary.passed


@without_compiler()
def audit_privacy(
    patients: SiteData,
    config: RunConfig,
    generator: torch.Generator,
    *,
    trained: Path | None = None,
    others: SiteData | None = None,
    canary: CanaryAudit | None = None,
) -> PrivacyAudit:
    """Run every check; takes a minute or so.

    Args:
        patients: the site's own.
        config: of a private run.
        generator: of the canaries.
        trained: model.safetensors of a finished run, for membership inference.
        others: patients that the run did not train on, from the same scanners if the answer is to mean much.
        canary: what the canaries have shown already: they are made-up, so that many sites can share one answer. None: now.

    Raises:
        DataError: `trained` without labelled patients on both sides.
        WeightsError, FederationError: a model that is not this configuration's.
    """
    plan, model = config.privacy, build_model(config)
    checks = [
        *noise_checks(plan.noise_multiplier, plan.max_grad_norm),
        sampling_check(system_sample, len(patients), plan.sample_rate),
        share_check(model, patients, config),
        *check_rounds(model, patients, config, round_kinds(config)),
    ]
    found = None
    if trained is not None and others is not None:
        arrays, _ = load_arrays(trained)
        check_arrays(arrays, get_arrays(model))
        probed = TrainedModel(model, arrays, config)
        found = membership_auc(_losses(probed, patients), _losses(probed, others))
    return PrivacyAudit(tuple(checks), canary or run_canaries(generator), found)


def run_canaries(generator: torch.Generator) -> CanaryAudit:
    """The one-run audit of a whole round. It depends on this machine and its software, on no patient and no setting."""
    noise = noise_for(CANARY_EPSILON, CANARY_DELTA, CANARY_RATE, CANARY_STEPS)
    return canary_round(Charge(noise, CANARY_RATE, CANARY_STEPS), CANARY_DELTA, generator)


def audit_table(result: PrivacyAudit, config: RunConfig) -> dict[str, Any]:
    """The audit in plain values, as a hospital may send it; `server.report.privacy_audit` reads it.

    Returns:
        `PrivacyAudit`'s fields, `passed`, and `mechanism`: the settings that were audited, to be held against the run's.
    """
    plan = config.privacy
    settings = {name: getattr(plan, name) for name in ("noise_multiplier", "max_grad_norm", "sample_rate")}
    return {"mechanism": settings, **asdict(result), "checks": [asdict(c) for c in result.checks], "passed": result.passed}


def membership_auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Loss-threshold membership inference (Yeom et al., CSF 2018): the chance that a member has the smaller loss.

    Raises:
        DataError: a side without labelled patients.
    """
    if not len(members) or not len(others):
        raise DataError("Membership inference needs labelled patients among the site's and among the others; a side has none.")
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    return float(roc_auc_score(truth, -np.concatenate([members, others])))


def _losses(trained: TrainedModel, patients: SiteData) -> NDArray[np.float64]:
    """Cross entropy of each labelled patient."""
    labelled = patients.select(patients.labelled)
    if not len(labelled):
        return np.empty(0)
    chances = predict(trained, labelled)[np.arange(len(labelled)), labelled.labels]
    return -np.log(np.clip(chances, 1e-12, None))


def share_check(model: MultiModalViT, patients: SiteData, config: RunConfig) -> Check:
    """No patient moves a step by more than the clipping norm, in the first round of each kind: head rounds, and others."""
    few = patients.select(range(min(PROBED, len(patients))))
    checks = [
        removal_check(partial(_clipped_sum, model, few, config, number), len(few), config.privacy.max_grad_norm)
        for number in round_kinds(config)
    ]
    return min(checks, key=lambda check: check.passed)  # one that failed, if any has


def round_kinds(config: RunConfig) -> list[int]:
    """Numbers of the first round of each kind: head rounds, where there are any, and others."""
    head_rounds = min(config.training.head_rounds, config.federation.rounds)
    return ([1] if head_rounds else []) + ([head_rounds + 1] if head_rounds < config.federation.rounds else [])


def _clipped_sum(
    model: MultiModalViT, patients: SiteData, config: RunConfig, round_number: int, rows: list[int]
) -> dict[str, Tensor]:
    """The given patients' clipped gradients, summed (not averaged) without noise by training's own optimizer, in a first step."""
    arrays = get_arrays(model.eval())
    point = first_point(arrays, torch.empty(0, dtype=torch.int64), config, round_number, torch.device("cpu"))
    if is_head_round(config, round_number):
        features = embed_patients(TrainedModel(model, arrays, config), patients)
        gradients = head_gradients(model, point, features.to("cpu"), np.array(rows, np.int64), config)
    else:
        place(model, torch.device("cpu"))  # where its examples are: head rounds leave it on a GPU
        drawn = [draw_example(model, patients, row, config, (config.seed, 0)) for row in rows]
        examples = [Example(*(part.cpu() for part in example)) for example in drawn]  # a GPU rounds by who else is in the batch
        gradients = patient_gradients(model, point, examples, config)
    # From zero, which rounds less than weights do.
    still = {name: torch.zeros_like(value, requires_grad=True) for name, value in point.trained.items()}
    optimizer = the_optimizer(torch.optim.SGD(still.values(), lr=1.0), 0.0, config.privacy.max_grad_norm, 1.0)
    optimizer.take(still, gradients)
    return {name: -value.detach().double() for name, value in still.items()}
