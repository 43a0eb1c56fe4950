"""What a run whose task gives no class of a patient is refused, by name.

What measures, calibrates, protects or explains one class a patient has no meaning for it; none of it is passed over in silence.
"""

from collections.abc import Iterator
from typing import NamedTuple

from common.config.sections import Sections
from common.errors import ConfigError


class Refused(NamedTuple):
    """A setting, as it is, why it cannot be, and what can."""

    name: str
    value: object
    why: str
    allowed: str


def refuse(config: Sections, found: Iterator[Refused]) -> None:
    """Refuse the first, if there is any.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    for one in found:
        name = config.task.name
        raise ConfigError(f'{one.name} = {one.value!r} cannot run with task.name = "{name}": {one.why}. Set {one.allowed}.')


def require_classes(config: Sections, what: str) -> None:
    """Refuse a run without classes where something knows these only.

    Args:
        config: of the run.
        what: refuses, as the sentence's beginning.

    Raises:
        ConfigError: its task gives no class of a patient.
    """
    if not config.task.exclusive:
        raise ConfigError(f'{what} knows runs that predict a class, and task.name is "{config.task.name}".')


def learnt_of_classes(config: Sections) -> Iterator[Refused]:
    """Terms that read classes, or learn of them without labels."""
    for term in config.objective.running():
        if term.name in ("classification", "fixmatch", "mean_teacher"):
            key = f"objective.terms.{term.name}.weight"
            yield Refused(key, term.weight, "it learns of classes, and there is none", f"{key} = 0.0")


def without_prototypes(config: Sections) -> Iterator[Refused]:
    """Terms that need prototypes, where no class stands in for them."""
    running = [term for term in config.objective.running() if term.name in ("dino", "ibot", "consistency")]
    if running and config.model.prototypes < 2:
        name = running[0].name
        why = f"objective.terms.{name}.weight is {running[0].weight:g}, and no class stands in for its prototypes"
        yield Refused("model.prototypes", config.model.prototypes, why, f"model.prototypes = 64, or {name}.weight = 0.0")


def measured_by_classes(config: Sections) -> Iterator[Refused]:
    """What needs classes of held-back patients, or of the external ones after each round."""
    one = config.evaluation
    if config.personal.on:
        why = "held-back patients would tell what it is worth, by their classes"
        yield Refused("personal", "on", why, "personal.keep = [] and personal.ditto_lambda = 0.0")
    if one.holdout:
        why = "held-back patients calibrate classes, and here they would be lost to training"
        yield Refused("evaluation.holdout", one.holdout, why, "evaluation.holdout = 0.0")
    if one.stage not in ("last", "average"):
        why = "the stage is chosen by the classes of held-back patients"
        yield Refused("evaluation.stage", one.stage, why, 'evaluation.stage = "last"')
    if one.every:
        why = "the curve over rounds is of a class measure (MCC)"
        yield Refused("evaluation.every", one.every, why, "evaluation.every = 0")
