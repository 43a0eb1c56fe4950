"""Kinds of trained arrays that a site may keep to itself (`personal.keep`), and what a run must have for it.

A private run keeps nothing: what leaves is charged whatever stays, the noise would fall on the kept arrays too, and nobody is
held back who could tell whether they are any better.
"""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from common.config.sections import Sections
from common.errors import ConfigError

KINDS: dict[str, tuple[str, ...]] = {  # globs of the arrays' names
    # Scale and bias of norms: FedBN's (Li et al., ICLR 2021), and its counterpart in a ViT. A ResNet's are named otherwise.
    "norms": ("vit.*norm*", "vit.*.bn[0-9]*", "vit.*.downsample.1.*"),
    "head": ("head.*",),  # FedPer (Arivazhagan et al., arXiv 1912.00818)
    "modality_embeddings": ("modality_embedding",),
}
Refused = Iterator[tuple[bool, str, str]]  # whether it is so, why that cannot be, what can


def named_by_kinds(names: Iterable[str], kinds: Iterable[str]) -> list[str]:
    """The names, in the order given, that are of one of the kinds."""
    globs = [glob for kind in kinds for glob in KINDS[kind]]
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def require_usable_personal(config: Sections) -> None:
    """Refuse what a site could not keep to itself, and a copy that no distance holds near the global model.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    keep = config.personal.keep
    if any(kind not in KINDS for kind in keep) or len(set(keep)) != len(keep):
        raise ConfigError(f"personal.keep: expected some of {', '.join(KINDS)}, each once; got {list(keep)}.")
    named = "personal.keep" if keep else "personal.ditto_lambda"
    for refused in (_of_runs, _of_kept, _of_ditto):
        for _, why, instead in (row for row in refused(config) if row[0]):
            raise ConfigError(f"{named} cannot run with {why}. Set {instead}.")


def _of_runs(config: Sections) -> Refused:
    """Of both."""
    rounds, model = config.federation.rounds, config.model
    measured = int(model.pooling.fits) + int(model.centre_features)
    before = config.training.ssl_rounds + (config.training.head_rounds if config.personal.keep else measured)
    yield (
        config.privacy.enabled,
        "privacy.enabled: no held-back patient could tell what it is worth",
        "privacy.enabled = false",
    )
    yield (
        before >= rounds,
        f"federation.rounds = {rounds}: {before} rounds are common to all, and none is left",
        f"federation.rounds of {before + 1} or more",
    )


def _of_kept(config: Sections) -> Refused:
    """Of arrays that sites keep."""
    keep, model, training, stage = config.personal.keep, config.model, config.training, config.evaluation.stage
    adapter, norms = model.adapter, "norms" in config.personal.keep
    yield (
        bool(keep) and stage != "last",
        f'evaluation.stage = "{stage}": what the sites keep is that of the last round',
        'evaluation.stage = "last"',
    )
    yield (
        norms and not (adapter.trains_norms or adapter.trains_backbone),
        f'"norms" and model.adapter = "{adapter.name}": it trains no norm',
        'another adapter, such as "lora"',
    )
    yield (
        norms and not model.train_norms and training.ssl_rounds > 0,
        f'"norms", model.train_norms = false and training.ssl_rounds = {training.ssl_rounds}: those would train norms for all',
        "model.train_norms = true",
    )
    yield (
        "modality_embeddings" in keep and not model.train_tokens,
        '"modality_embeddings" and model.train_tokens = false: no round trains them',
        "model.train_tokens = true",
    )
    yield (
        "head" in keep and not training.head_rounds,
        '"head" and training.head_rounds = 0: the global model would have no trained head',
        "training.head_rounds of 1 or more",
    )


def _of_ditto(config: Sections) -> Refused:
    """Of a copy of the whole."""
    ditto, low_rank = config.personal.ditto_lambda > 0, config.federation.low_rank
    yield (
        ditto and bool(config.personal.keep),
        "personal.ditto_lambda: a site would have two personal models",
        "personal.keep = []",
    )
    yield (
        ditto and low_rank.takes_pairs,
        f'federation.low_rank = "{low_rank.name}": it writes pairs anew, so that a distance between them says nothing',
        'federation.low_rank = "apart"',
    )
