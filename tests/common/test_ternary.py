"""Several yes/no answers as one number: nothing is lost, and -1 is a patient of whom nothing is known."""

from itertools import product

import numpy as np
import pytest
import torch

from common.ternary import MOST, NO, UNKNOWN, YES, answer_at, encode


def test_every_pattern_of_answers_comes_back_in_plain_numbers_arrays_and_tensors() -> None:
    patterns = list(product((NO, YES, UNKNOWN), repeat=3))
    codes = [encode(pattern) for pattern in patterns]
    assert len(set(codes)) == len(patterns)
    assert [code for code in codes if code < 0] == [encode((UNKNOWN,) * 3)] == [-1]
    for read in (lambda c: c, lambda c: int(np.array([c])[0]), lambda c: int(torch.tensor([c])[0])):
        for pattern, code in zip(patterns, codes, strict=True):
            assert tuple(answer_at(read(code), place) for place in range(3)) == pattern
    for kind in (np.array(codes), torch.tensor(codes)):
        found = np.stack([np.asarray(answer_at(kind, place)) for place in range(3)], axis=1)
        assert [tuple(row) for row in found.tolist()] == patterns


def test_one_answer_is_a_class_of_two() -> None:
    assert [encode([answer]) for answer in (NO, YES, UNKNOWN)] == [0, 1, -1]


def test_as_many_as_are_allowed_fit_into_what_carries_labels() -> None:
    most = encode([UNKNOWN] * (MOST - 1) + [YES])
    assert np.array([most], np.int64)[0] == most < 2**63
    assert answer_at(np.array([most], np.int64), MOST - 1).tolist() == [YES]
    with pytest.raises(OverflowError):
        np.array([3 ** (MOST + 1)], np.int64)
