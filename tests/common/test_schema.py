"""Fields that hold one of several kinds, or one of each, on kinds made up here."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from common.errors import ConfigError
from common.schema import build, check_ranges, dotted_names, many_of, one_of, plain, ranged, registry


@dataclass(frozen=True)
class Mean:
    name: ClassVar[str] = "mean"
    rate: float = ranged(1.0, 0.0, 2.0)


@dataclass(frozen=True)
class Momentum:
    name: ClassVar[str] = "momentum"
    rate: float = ranged(1.0, 0.0, 2.0)
    beta: float = ranged(0.9, 0.0, 1.0)


KINDS = registry(Mean, Momentum)


@dataclass(frozen=True)
class Section:
    rounds: int = 3
    way: Mean | Momentum = one_of("mean", KINDS)
    all: tuple[Mean | Momentum, ...] = many_of(KINDS)


def test_a_kind_by_its_name_or_by_a_table() -> None:
    assert build(Section, {}).way == Mean()
    assert build(Section, {"way": "momentum"}).way == Momentum()
    assert build(Section, {"way": {"name": "momentum", "beta": 0.5}}).way == Momentum(beta=0.5)
    assert build(Section, {"way": {"rate": 0.5}}).way == Mean(0.5)


def test_one_of_each_in_the_order_of_the_registry_whatever_is_named_first() -> None:
    section = build(Section, {"all": {"momentum": {"beta": 0}, "mean": {"rate": 2}}})
    assert section.all == (Mean(2.0), Momentum(1.0, 0.0))
    assert build(Section, {"all": {"momentum": {}}}).all == (Mean(), Momentum())


def test_plain_values_make_an_equal_configuration() -> None:
    section = build(Section, {"way": {"name": "momentum", "beta": 0.5}, "all": {"mean": {"rate": 0.0}}})
    table = plain(section)
    assert table["way"] == {"name": "momentum", "rate": 1.0, "beta": 0.5}
    assert table["all"] == {"mean": {"rate": 0.0}, "momentum": {"rate": 1.0, "beta": 0.9}}
    assert build(Section, table) == section


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"way": "median"}, "way: expected one of mean, momentum.*got 'median'"),
        ({"way": {"name": ["mean"]}}, "way: expected one of mean, momentum"),
        ({"way": 3}, "way: expected one of mean, momentum.*got 3"),
        ({"way": {"name": "mean", "beta": 0.5}}, r"Unknown key 'way\.beta'. Known here: rate"),
        ({"way": {"name": "mean", "rate": "x"}}, r"way\.rate: expected a number, got 'x'"),
        ({"all": {"median": {}}}, r"Unknown key 'all\.median'. Known here: mean, momentum"),
        ({"all": {"mean": {"beta": 1}}}, r"Unknown key 'all\.mean\.beta'"),
        ({"all": {"mean": 1.0}}, r"all\.mean: expected a table"),
        ({"all": []}, "all: expected a table"),
    ],
)
def test_what_is_wrong_is_refused_by_its_dotted_name(table: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(Section, table)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"way": {"name": "momentum", "beta": 1.5}}, r"way\.beta: expected a number from 0\.0 to 1\.0, got 1\.5"),
        ({"all": {"mean": {"rate": -1}}}, r"all\.mean\.rate: expected a number"),
    ],
)
def test_ranges_hold_inside_kinds(table: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_ranges(build(Section, table))


def test_every_key_is_listed_once() -> None:
    assert list(dotted_names(Section)) == [
        *("rounds", "way", "way.rate", "way.beta"),
        *("all", "all.mean", "all.mean.rate", "all.momentum", "all.momentum.rate", "all.momentum.beta"),
    ]
