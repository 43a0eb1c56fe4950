"""Candidates by their own arithmetic: averages and interpolations of arrays that are known, against NumPy's."""

import numpy as np
import pytest

from common.evaluation.stages.candidates import MOST_CANDIDATES, MOST_ROUNDS, STAGES, candidates


def load(number):
    """Arrays after a round: its number and its square."""
    return {"a": np.full((2, 3), number, np.float32), "b": np.array([number**2], np.float32)}


def named(stage, last=7, head=3):
    return [one.name for one in candidates(stage, load, last, head)]


def test_what_each_kind_chooses_from_the_preferred_first() -> None:
    rounds, mixed = [f"round {n}" for n in (7, 6, 5, 4)], "average of rounds 4 to 7"
    between = ["75% round 7, 25% round 3", "50% round 7, 50% round 3", "25% round 7, 75% round 3"]
    assert named("last") == rounds[:1]
    assert named("best") == [*rounds, "round 3"]
    assert named("average") == [mixed]
    assert named("interpolate") == [rounds[0], "round 3", *between]
    assert named("auto") == [*rounds, "round 3", mixed, *between]


def test_without_head_rounds_there_is_nothing_to_go_back_to() -> None:
    assert named("auto", last=3, head=0) == ["round 3", "round 2", "round 1", "average of rounds 1 to 3"]
    assert named("interpolate", last=3, head=0) == ["round 3"]


def test_no_self_supervised_round_is_kept_and_numbers_are_those_of_the_run() -> None:
    found = [one.name for one in candidates("auto", load, 6, 2, ssl_rounds=3)]
    between = ["75% round 6, 25% round 5", "50% round 6, 50% round 5", "25% round 6, 75% round 5"]
    assert found == ["round 6", "round 5", *between]  # an average of one round is that round
    assert [one.name for one in candidates("best", load, 5, 0, ssl_rounds=3)] == ["round 5", "round 4"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_tuned_nothing_keeps_its_last_round(stage) -> None:
    assert named(stage, last=4, head=4) == ["round 4"]
    assert named(stage, last=2, head=4) == ["round 2"]


def test_their_arrays_are_the_average_and_the_points_between() -> None:
    found = {one.name: one.arrays for one in candidates("auto", load, 7, 3)}
    assert found["round 5"]["b"] == [25]
    assert found["average of rounds 4 to 7"]["a"] == pytest.approx(np.full((2, 3), 5.5))
    assert found["average of rounds 4 to 7"]["b"] == pytest.approx([(16 + 25 + 36 + 49) / 4])
    assert found["75% round 7, 25% round 3"]["a"] == pytest.approx(np.full((2, 3), 6.0))
    assert found["25% round 7, 75% round 3"]["b"] == pytest.approx([0.25 * 49 + 0.75 * 9])
    assert {array.dtype for arrays in found.values() for array in arrays.values()} == {np.dtype(np.float32)}


def test_a_long_run_asks_no_more_than_a_short_one() -> None:
    found = candidates("auto", load, 200, 10)
    rounds = [one.round for one in found if one.round and one.round > 10]
    assert len(found) == MOST_CANDIDATES
    assert (len(rounds), rounds[0], rounds[-1]) == (MOST_ROUNDS, 200, 11)
    assert set(np.diff(rounds)) <= {-27, -28}
    average = next(one for one in found if one.name.startswith("average"))
    assert average.arrays["a"][0, 0] == pytest.approx(np.mean(range(11, 201)))  # of all tuning rounds
