"""What a peer is: a name in reports, and an untrained network of windows."""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import nn


class Peer:
    """The base class of peers, which are frozen dataclasses; their fields are what they are built with.

    Attributes:
        name: in reports.
    """

    name: ClassVar[str]

    def network(self, modalities: int, size: int) -> "nn.Module":
        """Images [n, M, H, W], zeros where a modality is absent, to logits [n, 1, H, W].

        It keeps no statistics of batches and draws nothing in training: it is measured as it was trained, and runs repeat.

        Args:
            modalities: M.
            size: H and W, of training and of prediction.
        """
        raise NotImplementedError
