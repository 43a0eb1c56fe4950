"""One class of several for each patient: a prototype of the head each (MM-DINOv2), measured by MCC, AUROC and calibration error.

Which classes is a matter of configuration: subtype and grade are both this task.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from common.errors import ConfigError

# scikit-learn takes seconds to load, and whoever parses a configuration imports this file: measures are imported where they run.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Classification:
    """See `common.tasks.task.Task` for the methods."""

    name: ClassVar[str] = "classification"
    term: ClassVar[str] = "classification"
    exclusive: ClassVar[bool] = True
    decoder: ClassVar[None] = None
    classes: tuple[str, ...] = ("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma")
    label: str = "subtype"  # column of participants.tsv; site.toml may name another

    def __post_init__(self) -> None:
        keys = {_key(word.strip()) for word in self.classes}
        if len(self.classes) < 2 or len(keys) != len(self.classes) or "" in keys:
            raise ConfigError(
                f"task.classes: expected at least two names, none of them empty or twice; got {list(self.classes)}."
            )

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    @property
    def columns(self) -> tuple[str, ...]:
        """One."""
        return (self.label,)

    @property
    def words(self) -> tuple[str, ...]:
        """The classes' names."""
        return self.classes

    def target(self, word: str) -> int | None:
        """Index of the class; numbers are compared by value, since a spreadsheet with a gap writes grade 2 as 2.0."""
        keys = [_key(name) for name in self.classes]
        return keys.index(_key(word)) if _key(word) in keys else None

    def joined(self, found: Sequence[int | None]) -> int:
        """The index of the class."""
        return next((target for target in found if target is not None), -1)

    def named(self, label: int) -> tuple[str, ...]:
        """The class."""
        return (self.classes[label],)

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """They add up to one."""
        return logits.softmax(-1)

    def evaluate(
        self,
        labels: "NDArray[Any]",
        probabilities: "NDArray[Any]",
        *,
        bootstrap: int,
        generator: "np.random.Generator",
    ) -> dict[str, Any]:
        """See `common.metrics.classification.evaluate`."""
        from common.metrics.classification import evaluate

        return evaluate(labels, probabilities, self.classes, bootstrap=bootstrap, generator=generator)

    def curves(self, labels: "NDArray[Any]", probabilities: "NDArray[Any]") -> dict[str, Any]:
        """`roc`: see `common.metrics.roc.roc_curves`."""
        from common.metrics.roc import roc_curves

        return {"roc": roc_curves(labels, probabilities, self.classes)}


def _key(word: str) -> str | float:
    """A number by its value, any other word as it is."""
    try:
        value = float(word)
    except ValueError:
        return word
    return value if math.isfinite(value) else word
