"""A site's round where something of the model is its own: arrays that it keeps, or a copy of the whole by Ditto.

`personal.keep`: the kept arrays take the place of the global ones, and the round trains them with the rest (FedBN: Li et al.,
ICLR 2021; FedPer: Arivazhagan et al., arXiv 1912.00818).

`personal.ditto_lambda` (Li et al., ICML 2021, algorithm 1): beside the global update, which stays as it was, the site trains a
copy v of its own on F(v) + lambda / 2 ||v - w||^2, where w are the global arrays that the round began with.
"""

from dataclasses import replace

from common.config.run import RunConfig
from common.config.sections import PersonalConfig
from common.data.dataset import SiteData
from common.models.arrays import Arrays, trained_at_sites
from common.models.multimodal import MultiModalViT
from common.objectives.fedprox import FedProx
from common.training.local import train_round
from common.training.shared import is_personal_round, kept_names
from common.training.update import LocalUpdate


def personal_round(
    model: MultiModalViT,
    arrays: Arrays,
    own: Arrays,
    patients: SiteData,
    config: RunConfig,
    *,
    round_number: int,
    site_seed: int,
    drift: Arrays | None = None,
    rank: int = 0,
) -> tuple[LocalUpdate, Arrays]:
    """One plain round at a site; where the round is no personal one, it is `train_round` and nothing else.

    Args:
        model: lends its frozen weights.
        arrays: the global model's.
        own: the site's own arrays, as an earlier round left them; {}: it has none yet, and begins with the global ones.
        patients: the site's that train.
        config: of the run.
        round_number: from 1.
        site_seed: of this site and round; Ditto's copy sees the same patients and views as the global update.
        drift: what SCAFFOLD corrects the global update by.
        rank: of the low-rank pairs that the site trains; 0: the run's.

    Returns:
        The update, of which `shared` arrays may leave; and the site's own arrays after the round, {} where the round has none.
    """
    keep = kept_names(sorted(arrays), config, round_number)
    begun = arrays | {name: own.get(name, arrays[name]) for name in keep}
    update = train_round(model, begun, patients, config, round_number=round_number, site_seed=site_seed, drift=drift, rank=rank)
    if not is_personal_round(config, round_number):
        return update, {}
    if keep:
        return update, {name: update.arrays[name] for name in keep}
    copy = train_round(
        model, arrays | own, patients, as_ditto(config), round_number=round_number, site_seed=site_seed, anchor=arrays
    )
    return update, trained_at_sites(copy.arrays)


def as_ditto(config: RunConfig) -> RunConfig:
    """The configuration by which the site's copy is trained: FedProx's term is the proximal one, its weight lambda."""
    terms = tuple(
        replace(term, weight=config.personal.ditto_lambda) if isinstance(term, FedProx) else term
        for term in config.objective.terms
    )
    return replace(config, objective=replace(config.objective, terms=terms), personal=PersonalConfig())
