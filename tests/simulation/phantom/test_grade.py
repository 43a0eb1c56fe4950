"""The grade goes with what is seen, within what WHO's classification knows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from simulation.phantom.grade import GRADES, SHARES, sample_grade
from simulation.phantom.lesion import SUBTYPES, sample_lesion

KNOWN = {"oligodendroglioma": {"2", "3"}, "idh-mutant-astrocytoma": {"2", "3", "4"}, "idh-wildtype": {"4"}}


def test_shares_are_shares() -> None:
    assert set(SHARES) == set(SUBTYPES)
    assert all(sum(shares) == pytest.approx(1.0) for both in SHARES.values() for shares in both)


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_grades_are_those_of_the_subtype_and_rise_with_enhancement(subtype: str) -> None:
    generator = np.random.default_rng(0)
    lesion = sample_lesion(generator, subtype)
    plain, bright = (replace(lesion, ring=0.0, patches=p) for p in (0.0, 0.3))
    dull, seen = ([sample_grade(generator, one) for _ in range(600)] for one in (plain, bright))
    assert {*dull, *seen} == KNOWN[subtype]
    mean = [np.mean([int(g) for g in grades]) for grades in (dull, seen)]
    assert mean[0] == mean[1] == 4 if subtype == "idh-wildtype" else mean[0] + 0.4 < mean[1]
    assert Counter(dull)["2"] / 600 == pytest.approx(SHARES[subtype][0][GRADES.index("2")], abs=0.06)
