"""The private gradient rule, and a site's private round: DP-SGD whose example is the patient (Abadi et al., CCS 2016).

Sampling and noise come from the operating system. Head rounds (`training.head_rounds`) take their steps on features. Opacus comes
with this file, so plain rounds do not import it. n patients of a sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.run import RunConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, check_arrays, get_arrays
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.objectives.term import States
from common.privacy.charge import Charge
from common.privacy.gradients import Parameters as Gradients
from common.privacy.noise import system_sample
from common.privacy.optimizer import SystemNoiseOptimizer
from common.training.device import choose_device, place
from common.training.optimizer import make_optimizer, set_rates
from common.training.private_probing import Features, embed_patients, head_gradients
from common.training.private_views import draw_example, patient_gradients
from common.training.round import Losses, Parameters, Point, Step, first_point, local_round
from common.training.site_rank import first_components, whole
from common.training.trainable import is_head_round
from common.training.update import LocalUpdate


@dataclass(frozen=True)
class PrivateGradients:
    """Descent on Poisson samples, by gradients that are one patient's each, clipped and noised.

    Attributes:
        gradients: [n, *shape] by name, before clipping, of the patients of these rows; n may be 0.
        patients: how many the site has.
        config: of a private run.
    """

    gradients: Callable[[Point, NDArray[np.int64]], Gradients]
    patients: int
    config: RunConfig

    @property
    def steps(self) -> int:
        """Of the round."""
        return self.config.privacy.steps

    def begin(self, trained: Parameters) -> Step:
        """See `GradientRule`."""
        privacy = self.config.privacy
        inner = make_optimizer(trained, self.config)
        optimizer = SystemNoiseOptimizer(
            inner,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.max_grad_norm,
            expected_patients=privacy.sample_rate * self.patients,
        )

        def step(point: Point) -> tuple[Losses, States]:
            set_rates(inner, self.config, point.done_after)
            rows = system_sample(self.patients, privacy.sample_rate)
            optimizer.take(point.trained, self.gradients(point, rows))
            return {}, point.states

        return step

    def metrics(self, history: Sequence[Losses]) -> dict[str, float]:
        """Nothing: a loss is no private number."""
        return {}


def private_round(
    model: MultiModalViT,
    arrays: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    site_seed: int,
    charge: Callable[[Charge], None],
    progress: Callable[[int, int], None] | None = None,
    rank: int = 0,
) -> LocalUpdate:
    """Take `config.privacy.steps` private steps from the global arrays.

    Args:
        model: lends its frozen weights, as in `common.training.local.train_round`.
        arrays: the global model's.
        patients: the site's that train; all may be sampled.
        config: with `privacy.enabled`.
        round_number: from 1.
        site_seed: of the views. Sampling and noise come from the operating system.
        charge: called with what the round will cost before any patient is touched; raises where the budget refuses.
        progress: called with steps done and steps in all.
        rank: that the site trains of low-rank pairs (`common.training.site_rank`); 0: the run's.

    Returns:
        The update. It alone is private: the counts beside it are not, and no loss is reported.
    """
    check_arrays(arrays, get_arrays(model))
    privacy = config.privacy
    charge(Charge(privacy.noise_multiplier, privacy.sample_rate, privacy.steps))
    device = choose_device()
    place(model, device)
    nothing_to_count = torch.empty(0, dtype=torch.int64)
    head = is_head_round(config, round_number)
    point = first_point(first_components(arrays, 0 if head else rank), nothing_to_count, config, round_number, device)

    @cache
    def features() -> Features:
        return embed_patients(TrainedModel(model, arrays, config), patients)

    def of_features(now: Point, rows: NDArray[np.int64]) -> Gradients:
        return head_gradients(model, now, features(), rows, config)

    def of_views(now: Point, rows: NDArray[np.int64]) -> Gradients:
        examples = [draw_example(model, patients, int(row), config, (site_seed, now.step)) for row in rows]
        return patient_gradients(model, now, examples, config)

    rule = PrivateGradients(of_features if head else of_views, len(patients), config)
    update = local_round(point, rule, patients, config, round_number=round_number, progress=progress)
    return replace(update, arrays=whole(update.arrays, arrays))
