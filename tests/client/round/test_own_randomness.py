"""Who trains in a masked round is the site's own draw."""

import numpy as np
import pytest

from client.round.own_randomness import LEFT_OUT, own_patients
from common.data.dataset import SiteData


def site(n: int) -> SiteData:
    images = np.zeros((n, 1, 1, 2, 2), np.float16)
    return SiteData("du", tuple(map(str, range(n))), images, np.ones((n, 1), bool), np.zeros(n, np.int64), "own")


@pytest.mark.parametrize("n", [2, 4, 10])
def test_one_at_least_stays_out_and_one_stays(n: int) -> None:
    """Where it may be nobody, two draws of four patients are often the same: a difference of sums then tells the update."""
    sizes = [len(own_patients(site(n))) for _ in range(300)]
    assert min(sizes) >= 1
    assert max(sizes) == n - 1


def test_a_patient_alone_stays_and_of_many_a_tenth_does_not() -> None:
    assert len(own_patients(site(1))) == 1
    assert len(own_patients(site(20_000))) / 20_000 == pytest.approx(1 - LEFT_OUT, abs=0.02)
