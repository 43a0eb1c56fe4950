"""What a run of findings must be: what measures, calibrates, audits or explains one class a patient has no meaning for it.

Each such setting is refused by its name; none is passed over in silence. The report says the same of what it leaves out.
"""

from collections.abc import Iterator
from itertools import chain

from common.config.classes import Refused, learnt_of_classes, measured_by_classes, refuse, without_prototypes
from common.config.sections import Sections
from common.errors import ConfigError

LEFT_OUT = (
    "class offsets and temperature (they are fitted to one class a patient; probabilities are the model's own)",
    "conformal prediction sets and abstention (they hold classes)",
    "the out-of-distribution threshold (it comes from held-back patients, and nobody is held back)",
    "tables of subgroups, and the smallest difference that can be seen (they are of a class measure, MCC)",
    "the model with and without clinical covariates (the table is of a class measure, MCC)",
    "the linear probe (it fits one class a patient)",
    "evidence by modality and by place (it explains a class)",
    "private rounds (their audit asks how sure the model is of a patient's class)",
)


def require_usable_findings(config: Sections) -> None:
    """Refuse what findings lack, and their own term in other runs.

    Raises:
        ConfigError: names the setting, why it cannot be, and what can.
    """
    weight = next(term.weight for term in config.objective.terms if term.name == "findings")
    if config.task.name != "findings":
        if weight:
            raise ConfigError(
                f'objective.terms.findings.weight = {weight:g} learns several findings a patient, and task.name = "'
                f'{config.task.name}" has none. Set it to 0, or task.name = "findings".'
            )
        return
    refuse(
        config,
        chain(_own(config, weight), learnt_of_classes(config), without_prototypes(config), measured_by_classes(config)),
    )


def _own(config: Sections, weight: float) -> Iterator[Refused]:
    name = "objective.terms.findings.weight"
    if not weight and not config.federation.unlabelled:
        yield Refused(name, 0.0, "no other term learns the findings", f"{name} = 1.0")
    if config.privacy.enabled:
        yield Refused("privacy.enabled", True, LEFT_OUT[-1].partition("(")[2].rstrip(")"), "privacy.enabled = false")
