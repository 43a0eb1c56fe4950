"""The interface of a loss term, and the values of a step that it may read.

Terms hold their settings and import nothing of models or training, so that a new one is one file and one line in `terms`.
B patients, V views (global ones first), U global views, T views of the teacher, R masked patches, K prototypes of which the first
C are the classes, E width of an embedding, S slices of H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]  # what a term carries from step to step within a round, by names of its own
States = Mapping[str, State]  # of every term that runs, by the term's name


@dataclass(frozen=True)
class StepOutputs:
    """Everything a term may read of one step.

    Attributes:
        logits: [V, B, K], cosines of the student's views with the prototypes.
        patch_logits: [R, K], the student's at the masked patches of its global views; [0, K] in private rounds and head rounds.
        embeddings: [U, B, E], the student's global views.
        labels: [B], negative where there is none.
        classes: C.
        exclusive: a patient has one of the classes: then these are prototypes as all others.
        teacher_logits: [T, B, K], of the student's global views unmasked; in a private round of the first view alone, with every
            modality that the patient has. [0, B, K] where no term needs the teacher.
        teacher_patch_logits: [R, K], at the same patches as `patch_logits`; [0, K] where no term needs the teacher.
        parameters: the arrays that the round trains, by name, as they are now.
        received: the same as the round began with them: the global model's.
        student_temperature, teacher_temperature: what cosines are divided by, now.
        dense: [U, B, S, H, W], a logit for each pixel of the student's global views; None: the task asks for none.
        lesions: [U, B, S, H, W], the part of each pixel that is tumour; zeros without a mask.
    """

    logits: Tensor
    patch_logits: Tensor
    embeddings: Tensor
    labels: Tensor
    classes: int
    teacher_logits: Tensor
    teacher_patch_logits: Tensor
    parameters: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    student_temperature: float
    teacher_temperature: float
    dense: Tensor | None = None
    lesions: Tensor | None = None
    exclusive: bool = True

    def prototypes(self, logits: Tensor) -> Tensor:
        """Those of [..., K] that a softmax may be over: it would make findings push each other out, and without them it is over
        the others."""
        return logits if self.exclusive else logits[..., self.classes :]


class Refusal(NamedTuple):
    """The reason why a private run cannot use a term with these settings."""

    key: str
    value: object
    allowed: object
    why: str


@dataclass(frozen=True)
class Term:
    """One term of the loss. A kind sets `name`, has `weight` among its settings, and gives `loss`.

    Attributes:
        weight: of the term in the sum; 0: it is not computed.
        per_patient: one patient's part depends on no other patient, neither through the batch nor through a state: then its
            gradient can be clipped, and a private round may have the term. It runs under `vmap`, so no branch reads a value.
        why_not_private: where it is not so, the reason, for the error.
        needs_teacher: reads `teacher_logits` or `teacher_patch_logits`.
        needs_attention: reads what a token knows of those around it, which in a CNN is nothing.
        on_features: also runs in head rounds, which have one view, its embedding and logits, and no teacher.
        in_ssl_rounds: also runs in self-supervised rounds (`training.ssl_rounds`): it learns nothing from labels or of classes.
    """

    name: ClassVar[str]
    per_patient: ClassVar[bool] = False
    why_not_private: ClassVar[str] = "one patient's part in it may depend on others"
    needs_teacher: ClassVar[bool] = False
    needs_attention: ClassVar[bool] = False
    on_features: ClassVar[bool] = False
    in_ssl_rounds: ClassVar[bool] = False

    weight: float

    def begin(self, labels: Tensor, classes: int) -> State:
        """The state at the start of a round.

        Args:
            labels: [N], all of the site's, negative where there is none; [0] in a private round, where counts would leak.
            classes: C.
        """
        return {}

    def loss(self, step: StepOutputs, state: State) -> tuple[Tensor, State]:
        """The unweighted scalar, and the next state; private rounds drop that, for it may know of the patients in a sample."""
        raise NotImplementedError

    def refusals(self) -> list[Refusal]:
        """The reasons against this term, with its settings, in a private run."""
        return [Refusal("weight", self.weight, 0.0, self.why_not_private)] if self.weight and not self.per_patient else []


def begin_all(terms: Iterable[Term], labels: Tensor, classes: int) -> States:
    """Every term's state at the start of a round; see `Term.begin`."""
    return {term.name: term.begin(labels, classes) for term in terms}


def weighted_losses(terms: Iterable[Term], step: StepOutputs, states: States) -> tuple[dict[str, Tensor], States]:
    """The weighted terms by name, to be added up, and their next states."""
    losses, after = {}, {}
    for term in terms:
        loss, after[term.name] = term.loss(step, states[term.name])
        losses[term.name] = term.weight * loss
    return losses, after
