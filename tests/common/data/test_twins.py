import numpy as np

from common.data.twins import Twin, comparable, find_twins, joined


def person(seed: int, size: int = 400) -> np.ndarray:
    return np.unique(np.random.default_rng(seed).integers(0, 2**63, size, dtype=np.uint64))


def test_pairs_are_those_of_a_naive_loop():
    people = [person(seed) for seed in range(6)]
    again = [joined([people[3][:60], person(30, 300)]), person(31), joined([people[0][::2]])]
    found = find_twins(people, again)
    naive = [
        Twin(i, k, len(set(a.tolist()) & set(b.tolist())) / min(a.size, b.size))
        for i, a in enumerate(people)
        for k, b in enumerate(again)
        if len(set(a.tolist()) & set(b.tolist())) >= max(12, 0.03 * min(a.size, b.size))
    ]
    assert found == naive
    assert [(twin.first, twin.second) for twin in found] == [(0, 2), (3, 0)]


def test_nobody_and_the_empty_are_nobodys_twins():
    nothing = np.empty(0, np.uint64)
    assert find_twins([], [person(1)]) == []
    assert find_twins([nothing], [nothing, person(1)]) == []
    assert not comparable(nothing)
    assert comparable(person(1))
    assert joined([]).size == 0
