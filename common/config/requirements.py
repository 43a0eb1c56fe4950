"""What the sections of a configuration must be to each other. A run that could not do what it says is refused by name."""

from common.aggregation.requirements import require_enough_sites, require_seen
from common.aggregation.scaffold import Scaffold, require_correctable
from common.config.axes import AXES, MOST_FIELDS, usual
from common.config.findings import require_usable_findings
from common.config.modalities import MODALITIES
from common.config.personal import require_usable_personal
from common.config.pictures import require_usable_pictures
from common.config.sections import Sections
from common.config.segmentation import require_usable_segmentation
from common.config.volume import require_usable_volumes
from common.errors import ConfigError


def require_consistent(config: Sections) -> None:
    """Check everything that no section can know by itself.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    require_known_modalities(config)
    require_known_axes(config)
    require_usable_pictures(config)
    require_usable_volumes(config)
    require_usable_findings(config)
    require_usable_standard(config)
    require_target_apart(config)
    require_trained_head(config)
    require_usable_head(config)
    require_usable_ssl_rounds(config)
    require_public_features(config)
    require_measured_centre(config)
    require_trained_pooling(config)
    require_usable_stage(config)
    require_usable_strategy(config)
    require_usable_pair_rule(config)
    if config.personal.on:
        require_usable_personal(config)
    if config.privacy.enabled:
        require_bounded(config)
    require_unpublished_holdout(config)
    require_summable_wire(config)
    require_usable_segmentation(config)


def require_known_modalities(config: Sections) -> None:
    """Refuse modalities that the table lacks, none at all, and one named twice."""
    chosen = config.data.modalities
    if any(m not in MODALITIES for m in chosen) or not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"data.modalities: expected some of {', '.join(MODALITIES)}, each once; got {list(chosen)}.")


def require_known_axes(config: Sections) -> None:
    """Refuse axes that the table lacks, none at all, and an axis or a field of view named twice."""
    axes, fields = config.data.axes, config.data.field_of_view
    if any(axis not in AXES for axis in axes) or not axes or len(set(axes)) != len(axes):
        raise ConfigError(f"data.axes: expected some of {', '.join(AXES)}, each once; got {list(axes)}.")
    if isinstance(fields, tuple) and (not 2 <= len(fields) <= MOST_FIELDS or len(set(fields)) != len(fields)):
        raise ConfigError(
            f"data.field_of_view: expected a number, or a list of 2 to {MOST_FIELDS}, each once (mm); got {list(fields)}."
        )


def require_usable_standard(config: Sections) -> None:
    """Refuse landmarks that would leave without noise or without a mask, and a standard of what the run does not read."""
    data, hidden = config.data, {"privacy.enabled": config.privacy.enabled, **_hidden(config)}
    if unread := [row.name for row in data.standard if row.name not in data.modalities]:
        raise ConfigError(f"data.standard: {unread[0]!r} is not among data.modalities. Take it out of the list.")
    for name in (name for name, on in hidden.items() if on and data.harmonise and not data.standard):
        raise ConfigError(
            f"data.harmonise cannot run with {name}: the sites' landmarks would leave in the clear. Set data.standard, such as "
            "standard.json of a run without it has."
        )


def require_target_apart(config: Sections) -> None:
    """Refuse a covariate that is the target, or who the patient is: the model would be told the answer."""
    for name in (row.name for row in config.data.covariates):
        if name in (*config.task.columns, "participant_id"):
            target = "the target itself (task.label)" if config.task.label else "a target itself (task.findings)"
            told = target if name in config.task.columns else "who the patient is"
            raise ConfigError(f"data.covariates: {name!r} is {told}. Take it out of the list.")


def require_unpublished_holdout(config: Sections) -> None:
    """Refuse sums over held-out patients where whole hospitals are to be hidden."""
    if config.site_level.enabled and config.evaluation.holdout:
        raise ConfigError(
            f"evaluation.holdout = {config.evaluation.holdout!r} cannot run with site_level.enabled: the noise hides whole "
            "hospitals, and their sums over held-out patients would be published without any. Set evaluation.holdout = 0.0."
        )


def require_usable_pair_rule(config: Sections) -> None:
    """Refuse a rule for low-rank pairs that needs what the server does not see, or that does not fit adapter and strategy."""
    rule = config.federation.low_rank
    for name in (name for name, on in _hidden(config).items() if on and not rule.from_sum):
        raise ConfigError(
            f'federation.low_rank = "{rule.name}" cannot run with {name}: it needs the change of each site by itself, '
            'and only their sum is used there. Choose another, such as federation.low_rank = "apart".'
        )
    if why := rule.why_not(config.model.adapter, config.federation.strategy):
        raise ConfigError(f'federation.low_rank = "{rule.name}" cannot run with {why}. Set low_rank = "apart".')


def require_summable_wire(config: Sections) -> None:
    """Refuse changes in fewer bits where sums of masked integers travel: they have a form of their own."""
    if config.secure.enabled and config.federation.wire != "float32":
        raise ConfigError(
            f'federation.wire = "{config.federation.wire}" cannot run with secure.enabled: masked updates travel as integers of '
            'their own, whose range secure.update_range is. Set federation.wire = "float32".'
        )


def require_trained_head(config: Sections) -> None:
    """Refuse head rounds in which no loss would train the head."""
    rounds, name = config.training.head_rounds, config.task.term
    weights = {term.name: term.weight for term in config.objective.terms}
    if rounds and not weights[name]:
        raise ConfigError(
            f"training.head_rounds = {rounds} needs objective.terms.{name}.weight above 0: that term fits the head. "
            "Set training.head_rounds = 0, or give the term a weight."
        )


def require_usable_head(config: Sections) -> None:
    """Refuse settings that the linear head lacks, and an optimizer that private rounds would not take."""
    hidden, first = config.model.head_hidden, config.training.ssl_rounds
    if config.model.head == "linear" and hidden:
        raise ConfigError(
            f'model.head = "linear" has no hidden layer, and model.head_hidden is {hidden}. Set model.head_hidden = 0.'
        )
    if config.model.head == "linear" and first:
        raise ConfigError(
            f'model.head = "linear" cannot run with training.ssl_rounds = {first}: they would train its class outputs for a '
            'meaning that no class has. Set training.ssl_rounds = 0, or model.head = "prototypes".'
        )
    if config.training.head_optimizer != "adamw" and config.privacy.enabled:
        raise ConfigError(
            f'training.head_optimizer = "{config.training.head_optimizer}" cannot run with privacy.enabled: private rounds '
            'step by AdamW. Set training.head_optimizer = "adamw".'
        )


def require_usable_ssl_rounds(config: Sections) -> None:
    """Refuse self-supervised rounds that are not bounded, that nothing would train, or after which no class would be learnt."""
    first, head_rounds, rounds = config.training.ssl_rounds, config.training.head_rounds, config.federation.rounds
    if not first:
        return
    if config.privacy.enabled:
        raise ConfigError(
            f"training.ssl_rounds = {first} cannot run with privacy.enabled: one patient's part in DINO, iBOT and KoLeo is not "
            "bounded. Set training.ssl_rounds = 0."
        )
    if not any(term.in_ssl_rounds and term.needs_teacher for term in config.objective.running()):
        raise ConfigError(
            f"training.ssl_rounds = {first} needs objective.terms.dino.weight or objective.terms.ibot.weight above 0: they are "
            "what trains in them. Give one a weight, or set training.ssl_rounds = 0."
        )
    if first + head_rounds > rounds or first == rounds:
        raise ConfigError(
            f"training.ssl_rounds = {first} and training.head_rounds = {head_rounds} need federation.rounds of "
            f"{first + max(head_rounds, 1)} or more, got {rounds}: self-supervised rounds come first and learn no class."
        )


def require_trained_pooling(config: Sections) -> None:
    """Refuse a pooling with arrays that no round would train: it would be a mean under another name."""
    pooling, head_rounds, rounds = config.model.pooling, config.training.head_rounds, config.federation.rounds
    ssl_rounds = config.training.ssl_rounds
    if pooling.trains and ssl_rounds + head_rounds >= rounds:
        before = f" after training.ssl_rounds = {ssl_rounds}" if ssl_rounds else ""
        raise ConfigError(
            f'model.pooling = "{pooling.name}" is trained in tuning rounds, and training.head_rounds = {head_rounds}{before} '
            f"leaves none of federation.rounds = {rounds}. Give it more rounds, or choose a pooling that trains nothing."
        )
    if pooling.fits and head_rounds < 2:
        raise ConfigError(
            f'model.pooling = "{pooling.name}" needs training.head_rounds of 2 or more, got {head_rounds}: the first fits it '
            "to tumour masks, those after it fit the head to what it pools."
        )
    noised = {"privacy.enabled": config.privacy.enabled, "site_level.enabled": config.site_level.enabled}
    for name in (name for name, on in noised.items() if on and pooling.fits):
        raise ConfigError(
            f'model.pooling = "{pooling.name}" cannot run with {name}: its fit to tumour masks would leave without noise. '
            'Choose another, such as model.pooling = "centre".'
        )


def require_usable_stage(config: Sections) -> None:
    """Refuse an interpolation between the head-only model and the tuned one where a run has not both."""
    stage, head_rounds, rounds = config.evaluation.stage, config.training.head_rounds, config.federation.rounds
    tuning_rounds = rounds - head_rounds - config.training.ssl_rounds
    if stage == "interpolate" and not (head_rounds and tuning_rounds > 0):
        raise ConfigError(
            f'evaluation.stage = "interpolate" needs head rounds and tuning rounds; training.head_rounds = '
            f'{head_rounds} leaves {max(tuning_rounds, 0)} of federation.rounds = {rounds}. Set evaluation.stage = "last".'
        )


def require_measured_centre(config: Sections) -> None:
    """Refuse mean features where no round measures them, or where they would leave without noise."""
    if not config.model.centre_features:
        return
    least = 3 if config.model.pooling.fits else 2  # what pools the features comes first
    if config.training.head_rounds < least:
        raise ConfigError(
            f"model.centre_features needs training.head_rounds of {least} or more, got {config.training.head_rounds}: one "
            "measures the mean features, those after it fit the head to what they leave."
        )
    for name, on in {"privacy.enabled": config.privacy.enabled, "site_level.enabled": config.site_level.enabled}.items():
        if on:
            raise ConfigError(
                f"model.centre_features cannot run with {name}: a site's mean features would leave without noise. "
                "Set model.centre_features = false."
            )


def require_public_features(config: Sections) -> None:
    """Refuse queries that nobody taught, a mean that is taken off twice, and slices other than those that were learned from."""
    model = config.model
    if model.public_features and not usual(config.data):
        raise ConfigError(
            f"model.public_features cannot run with data.axes = {list(config.data.axes)} and data.field_of_view = "
            f"{config.data.field_of_view}: they are learned from axial slices at one field of view. Take these two out, or set "
            'model.public_features = "".'
        )
    if model.pooling.name == "taught" and not model.public_features:
        raise ConfigError(
            'model.pooling = "taught" needs model.public_features: its queries are in that file. Name one, such as '
            'model.public_features = "phantom-tissue", or choose another pooling.'
        )
    if model.centre_features and model.public_features:
        raise ConfigError(
            "model.centre_features cannot run with model.public_features: they hold a mean of their own, which is taken off. "
            "Set model.centre_features = false."
        )


def require_usable_strategy(config: Sections) -> None:
    """Refuse an aggregator that lacks what it needs."""
    strategy, adapter = config.federation.strategy, config.model.adapter
    require_seen(strategy, _hidden(config))
    require_enough_sites(strategy, config.federation.min_sites)
    if isinstance(strategy, Scaffold):
        alternating = adapter.still(1) != adapter.still(2)
        require_correctable(private=config.privacy.enabled, site_level=config.site_level.enabled, alternating=alternating)


def require_bounded(config: Sections) -> None:
    """Refuse what would let one patient move a private step by more than the clipping norm."""
    crops, holdout = config.objective.local_crops, config.evaluation.holdout
    refused = [(f"objective.terms.{term.name}.{key}", *why) for term in config.objective.terms for key, *why in term.refusals()]
    if crops:
        refused.append(("objective.local_crops", crops, 0, "the private recipe has global views only"))
    if holdout:
        refused.append(("evaluation.holdout", holdout, 0.0, "sums over held-out patients would leave without noise"))
    for name, value, allowed, why in refused:
        raise ConfigError(f"{name} = {value!r} cannot run with privacy.enabled: {why}. Set {name} = {allowed!r}.")


def _hidden(config: Sections) -> dict[str, bool]:
    """Under which settings the server uses the sum of the sites' changes only, and whether they are on."""
    return {"secure.enabled": config.secure.enabled, "site_level.enabled": config.site_level.enabled}
