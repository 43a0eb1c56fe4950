"""What an adapter is: its settings, and what it does to the frozen maps of a block.

The configuration names adapters, and a command parses one without waiting for torch: files of this room import torch where they
compute. The arrays live in `common.models.adapted.Adapted`, under the names that `start` gives them.
O outputs and I inputs of a map, D width of the backbone, r rank.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

PAIR = ("lora_b", "lora_a")  # the arrays of a low-rank map, left factor and right one
RESIDUAL = ("residual_b", "residual_a")  # beside a pair, where `federation.low_rank` keeps one: written by the server alone

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Map = Callable[[Tensor], Tensor]
    Values = Mapping[str, Tensor]


class Adapter:
    """An adapter that trains nothing: the base class of adapters, which are frozen dataclasses and override what they do.

    Attributes:
        name: in `model.adapter`.
        mergeable: `weight` gives a plain matrix with the same outputs, which takes the place of the adapter in a release.
        trains_norms: `model.train_norms` has a meaning beside it.
        trains_backbone: every weight of the backbone is trained.
        pairs: the adapted map is the frozen one plus a multiple of `lora_b @ lora_a`, and of `residual_b @ residual_a` where it
            is given them: so `common.low_rank` knows what the mean of the sites' maps is.
    """

    name: ClassVar[str]
    mergeable: ClassVar[bool] = True
    trains_norms: ClassVar[bool] = True
    trains_backbone: ClassVar[bool] = False
    pairs: ClassVar[bool] = False

    @property
    def exact_mean(self) -> bool:
        """Whether the mean of its arrays gives the mean of the sites' maps in every round."""
        return False

    @property
    def places(self) -> tuple[str, ...]:
        """Maps of a block that the adapter wraps, in the order of their random draws: of a backbone's `places`."""
        return ()

    def trains(self, parameter: str) -> bool:
        """Whether it trains a parameter of the block itself, by its name in the block."""
        del parameter
        return False

    def start(self, weight: "Tensor | None", width: int, generator: "Generator") -> "dict[str, Tensor]":
        """The initial values of the arrays trained at one place, such that the block's outputs are those of the frozen one.

        Args:
            weight: of the frozen map, [O, I]; None where it is no linear one.
            width: of the backbone.
            generator: for what starts at random, so that every site starts from the same values.
        """
        raise NotImplementedError

    def forward(self, frozen: "Map", weight: "Tensor | None", bias: "Tensor | None", values: "Values", x: "Tensor") -> "Tensor":
        """The adapted map, [..., I] to [..., O].

        The frozen map runs with gradients on: an adapter of an earlier block learns only through it.

        Args:
            frozen: the frozen map.
            weight: of the frozen map, [O, I]; None where it is not linear.
            bias: of the frozen map, [O]; None where it has none.
            values: the trained arrays.
            x: [..., I].
        """
        raise NotImplementedError

    def weight(self, frozen: "Tensor", values: "Values") -> "Tensor":
        """The matrix [O, I] of the adapted map, from the frozen one."""
        raise NotImplementedError

    def still(self, number: int) -> tuple[str, ...]:
        """The names of its arrays that a round keeps fixed.

        Args:
            number: of the round, from 1, head rounds not counted.
        """
        del number
        return ()

    def still_in_step(self, step: int) -> tuple[str, ...]:
        """The names of its arrays, beside those of `still`, that one local step keeps fixed.

        Args:
            step: of the round, from 0.
        """
        del step
        return ()
