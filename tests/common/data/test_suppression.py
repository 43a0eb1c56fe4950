"""An attack that knows the rules: all small tables are listed, and those that give the same release are told apart by nothing."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import pytest

from common.data import suppression
from common.data.suppression import Topic, release

Table = tuple[tuple[int, ...], ...]


def compositions(total: int, groups: int) -> Iterator[tuple[int, ...]]:
    if groups == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, groups - 1):
            yield (first, *rest)


def tables(groups: tuple[int, ...], most: int) -> Iterator[tuple[int, Table]]:
    """Every way to put up to `most` patients into topics of so many groups."""
    for patients in range(most + 1):
        for table in product(*(list(compositions(patients, n)) for n in groups)):
            yield patients, table


def as_topics(table: Table, shared: int | None) -> dict[str, Topic]:
    topics = {f"topic {i}": Topic({str(j): count for j, count in enumerate(row)}) for i, row in enumerate(table)}
    return topics if shared is None else topics | {"findings": Topic({"code": shared}, apart=False, closed=False)}


def learnt(groups: tuple[int, ...], least: int, most: int, *, findings: bool = False) -> list[str]:
    """Counts under the minimum of which a release lets somebody rule out even one other value under it."""
    releases = defaultdict(list)
    for patients, table in tables(groups, most):
        for shared in range(patients + 1) if findings else [None]:
            told = release(as_topics(table, shared), patients, least)
            cells = [count for row in table for count in row] + ([shared] if shared is not None else [])
            releases[repr(told)].append((told[0], cells))
    found = []
    for known, worlds in releases.items():
        if not 0 < worlds[0][0] < most - 2 * least:  # beyond, the list of tables is cut off
            continue
        for column in zip(*(cells for _, cells in worlds), strict=True):
            if any(count < least for count in column) and not set(range(least)) <= set(column):
                found.append(f"{known}: {sorted(set(column))}")
    return found


@pytest.mark.parametrize(
    ("groups", "least", "most"), [((2,), 3, 15), ((2, 3), 3, 12), ((1, 4), 3, 13), ((1, 4), 2, 10), ((1, 5), 2, 10)]
)
def test_no_count_under_the_minimum_is_learnt_even_by_who_knows_the_rules(groups, least, most):
    assert learnt(groups, least, most) == []


def test_nor_where_groups_share_patients():
    assert learnt((2, 2), 2, 10, findings=True) == []


def test_the_attack_succeeds_where_counts_are_only_rounded(monkeypatch):
    monkeypatch.setattr(suppression, "_most", lambda *_: float("inf"))
    assert learnt((1, 4), 2, 10)


def test_ten_groups_of_nine_do_not_give_themselves_away():
    topics = {"sex": Topic({"f": 90, "m": 0}), "age": Topic({str(i): 9 for i in range(10)})}
    patients, told = release(topics, 90, 10)
    assert patients < 90
    assert told["sex"]["f"] < 90
    assert set(told["age"].values()) == {0}


def test_a_minimum_of_one_tells_all_and_too_few_patients_nothing():
    topics = {"sex": Topic({"f": 3, "m": 0}), "codes": Topic({"a": 2, "b": 3}, apart=False, closed=False)}
    assert release(topics, 3, 1) == (3, {"sex": {"f": 3, "m": 0}, "codes": {"a": 2, "b": 3}})
    assert release(topics, 3, 4) == (0, {"sex": {"f": 0, "m": 0}, "codes": {"a": 0, "b": 0}})
