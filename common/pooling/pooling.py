"""What a pooling is: its settings, and how much each patch token counts in its modality's mean.

The configuration names poolings, and a command parses one without waiting for torch: files of this room import torch where they
compute. B patients, S slices, M modalities, P = h x h patches of a slice, D width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Values = Mapping[str, Tensor]


POOL = "pool."  # before the names of its arrays, among those that travel


class Pooling:
    """The base class of poolings, which are frozen dataclasses and override what they do.

    The same in training, test, release and explanation: so weights depend on a patient's own tokens, and on nothing that one of
    these lacks.

    Attributes:
        name: in `model.pooling`.
        trains: it has arrays of its own, which tuning rounds train; head rounds, which see pooled tokens only, leave them.
        fits: it has arrays of its own, which the first round fits to tumour masks (`common.training.guide`); later ones do not.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    fits: ClassVar[bool] = False

    def start(self, modalities: int, width: int, generator: "Generator") -> "dict[str, Tensor]":
        """The initial values of the arrays that it trains.

        Args:
            modalities: M.
            width: D.
            generator: for what starts at random, so that every site starts from the same values.
        """
        del modalities, width, generator
        return {}

    def weights(self, patches: "Tensor", values: "Values") -> "Tensor | None":
        """Each patch token's part in its modality's mean.

        Args:
            patches: [B, S, M, P, D]; anything finite where the modality is absent.
            values: the trained arrays.

        Returns:
            float32 that broadcasts to [B, S, M, P], not negative, of each patient and modality 1 in sum over S and P. None: all
            alike.
        """
        raise NotImplementedError

    def sums(self, patches: "Tensor", present: "Tensor", lesion: "Tensor") -> "Tensor":
        """Of one that `fits`: what a batch adds to the fit.

        Args:
            patches: [B, S, M, P, D].
            present: [B, M] bool.
            lesion: [B, S, P], the part of each patch that is tumour, 0 to 1; a patient without any has no mask.
        """
        raise NotImplementedError

    def solve(self, sums: "Tensor", values: "Values") -> "dict[str, Tensor]":
        """Of one that `fits`: its arrays by the sums over all batches; `values` are those before."""
        raise NotImplementedError
