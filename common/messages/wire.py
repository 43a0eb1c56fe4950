"""How a site's change travels: in float32, or in fewer bits, and what is lost on the way is added to the next one.

    float32   as it is
    bf16      the upper half of float32, rounded to even, as 16-bit integers: a half of the bytes
    int8      whole multiples of a power of two, the smallest for which the array's largest value is 127 or less, behind that
              power's exponent: a quarter of the bytes

Rounding once more changes nothing, so whoever reads a change holds what its sender held. Error feedback (Seide et al.,
INTERSPEECH 2014; Karimireddy et al., ICML 2019, algorithm 1): the site keeps what rounding took away, and adds it to its next
change; over the rounds nothing is lost. Of a private update all this is post-processing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.models.arrays import Arrays

Floats = NDArray[np.float32]
LARGEST, LOWEST, HIGHEST = 127, -126, 120  # code; exponents: float32's normal range, and values that stay finite


@dataclass(frozen=True)
class Wire:
    """A form of float32 arrays.

    Attributes:
        dtype: of what travels.
        extra: how many elements stand before those of the array, in one flat array; 0: it keeps its shape.
        encode: a float32 array to what travels.
        decode: what travels, and the array's shape, to float32.
    """

    dtype: str
    extra: int
    encode: Callable[[Floats], NDArray[np.generic]]
    decode: Callable[[NDArray[np.generic], tuple[int, ...]], Floats]

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of what travels for an array of this shape."""
        return (self.extra + int(np.prod(shape, dtype=np.int64)),) if self.extra else shape

    def rounded(self, array: Floats) -> Floats:
        """The array as it arrives."""
        return self.decode(self.encode(array), array.shape)


def with_feedback(change: Arrays, left: Arrays, wire: Wire) -> tuple[Arrays, Arrays]:
    """What a site sends of its change, and what is left for the next one.

    Args:
        change: of this round; an array that the round did not train is zero, is sent as zero, and keeps what was left of it.
        left: of the rounds before; {}: nothing.
        wire: what travels.
    """
    sent, kept = Arrays(), Arrays()
    for name, array in change.items():
        before = left.get(name, np.zeros_like(array))
        whole = array + before if array.any() else array
        sent[name] = wire.rounded(whole)
        kept[name] = whole - sent[name] if array.any() else before
    return sent, kept


def _to_bf16(array: Floats) -> NDArray[np.generic]:
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    even = (bits >> 16) & 1
    return np.asarray((bits + 0x7FFF + even) >> 16).astype("<u2")


def _from_bf16(codes: NDArray[np.generic], shape: tuple[int, ...]) -> Floats:
    return np.left_shift(codes.astype(np.uint32), 16).view(np.float32).reshape(shape)


def _to_int8(array: Floats) -> NDArray[np.generic]:
    part, exponent = np.frexp(np.float64(np.abs(array).max(initial=0.0)) / LARGEST)
    power = int(np.clip(exponent - (part == 0.5), LOWEST, HIGHEST))  # 2 ** power is at least the largest value's 127th
    codes = np.rint(np.ldexp(array.astype(np.float64).ravel(), -power)).clip(-LARGEST, LARGEST)
    return np.concatenate([[power], codes]).astype(np.int8)


def _from_int8(codes: NDArray[np.generic], shape: tuple[int, ...]) -> Floats:
    with np.errstate(over="ignore"):  # what becomes infinite is refused where it is read
        return np.ldexp(codes[1:].astype(np.float32), int(codes[0])).reshape(shape)


WIRES = {
    "float32": Wire("<f4", 0, lambda array: array, lambda codes, shape: codes.astype(np.float32).reshape(shape)),
    "bf16": Wire("<u2", 0, _to_bf16, _from_bf16),
    "int8": Wire("|i1", 1, _to_int8, _from_int8),
}
FLOAT32 = WIRES["float32"]
