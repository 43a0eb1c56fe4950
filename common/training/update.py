"""The result of one round at one site."""

from dataclasses import dataclass

from common.models.arrays import Arrays


@dataclass(frozen=True)
class LocalUpdate:
    """What one round at one site gives.

    Attributes:
        arrays: the trained arrays, by name.
        patients, labelled: how many the site has. Not public: the site's policy says whether they leave.
        metrics: mean of each loss term, and seconds.
    """

    arrays: Arrays
    patients: int
    labelled: int
    metrics: dict[str, float]
