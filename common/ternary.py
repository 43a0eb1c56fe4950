"""Several yes/no answers of which any may be unknown, as one whole number: what a patient's label is to tasks of findings.

In base three, the first answer last: 0 no, 1 yes, 2 unknown. Rounded down, every digit of -1 is 2, so that -1 is a patient of
whom nothing is known, as for every other task: whoever carries, counts or hides labels needs to know of no second kind.
"""

from collections.abc import Sequence
from typing import Any

NO, YES, UNKNOWN = 0, 1, 2
MOST = 39  # answers: 3**39 is below 2**63


def encode(answers: Sequence[int]) -> int:
    """Of NO, YES and UNKNOWN of each the whole number; -1: all are unknown."""
    if all(answer == UNKNOWN for answer in answers):
        return -1
    return sum(answer * 3**place for place, answer in enumerate(answers))


def answer_at(code: Any, place: int) -> Any:
    """NO, YES or UNKNOWN of one number, or of each in an array or a tensor of whole numbers."""
    return code // 3**place % 3
