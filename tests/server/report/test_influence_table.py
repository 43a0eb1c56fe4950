"""How much each hospital moved the model, from the record of rounds to the page."""

from typing import Any

import pytest

from server.report.page.rounds import read
from server.report.round import decode_round


def test_shares_are_means_over_the_rounds_and_the_distance_that_was_left_is_told() -> None:
    def record(number: int, **influence: dict[str, float]) -> dict[str, Any]:
        return {"round": number, "sites": list(influence), "influence": influence}

    usual = {"weight": 0.5, "change": 0.4, "scale": 1.0}
    rounds = [
        record(1, a=usual, b={"weight": 0.5, "change": 0.6, "scale": 0.5, "drawn": 0.25}),
        record(2, a=usual, b={"weight": 0.3, "change": 0.2, "scale": 1.0, "drawn": 0.75}),
        record(3, a=usual),  # of an earlier version, and without b
    ]
    a, b = read(tuple(map(decode_round, rounds))).parts
    assert (a.site, b.site) == ("a", "b")
    assert [a.weight, a.change, a.largest, a.shortened, a.near] == pytest.approx([0.5, 0.4, 0.4, 0, 1.0])
    assert [b.weight, b.change, b.largest, b.shortened, b.near] == pytest.approx([0.4, 0.4, 0.6, 1, 0.5])
