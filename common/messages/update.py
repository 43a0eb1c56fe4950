"""A site's update: the change of the trained arrays, the only part of the model that leaves the site.

    update   change: ArrayRecord   trained arrays - the arrays that the site was sent, float32, by name; residuals are not in it

In float32 the received array plus the change may differ from the trained one by half a unit in the last place; an array that
the round did not train has a change of exactly zero. The norm never travels: whoever holds an update works it out.
"""

from dataclasses import dataclass, field
from functools import cached_property

from common.models.arrays import Arrays, difference, norm, trained_at_sites


@dataclass(frozen=True)
class Update:
    """A change, read and checked; empty where a site failed."""

    change: Arrays = field(default_factory=dict)

    @classmethod
    def between(cls, trained: Arrays, received: Arrays) -> "Update":
        """The change that training made to the arrays that the site was sent."""
        return cls(difference(trained, trained_at_sites(received)))

    @cached_property
    def norm(self) -> float:
        """Euclidean norm of the change, all arrays together; worked out once."""
        return norm(self.change)
