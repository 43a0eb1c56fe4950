"""What a run says where its pooling was to learn from tumour masks, and no hospital had one."""

from common.config.run import RunConfig
from common.models.arrays import Arrays
from common.pooling.pooling import POOL
from common.training.trainable import fits_pooling


def untaught(config: RunConfig, arrays: Arrays, round_number: int) -> str:
    """A sentence; "" where masks taught the pooling, or none was to.

    Args:
        config: of the run.
        arrays: the global ones after a round. A pooling that masks teach begins at zero, which is the plain mean.
        round_number: of that round; before the one that fits the pooling nothing is said.
    """
    due = config.model.pooling.fits and round_number > config.training.ssl_rounds
    if not due or any(array.any() for name, array in arrays.items() if name.startswith(POOL)):
        return ""
    return (
        f"No hospital had a tumour mask in the round that fits the pooling: {config.model.pooling.name!r}, which learns from "
        'masks, stays the plain mean over patches. Add masks at one hospital or more, or set model.pooling = "mean".'
    )


def told_after(config: RunConfig, arrays: Arrays, round_number: int) -> str:
    """The same sentence, after the round that fits the pooling alone."""
    return untaught(config, arrays, round_number) if fits_pooling(config, round_number) else ""
