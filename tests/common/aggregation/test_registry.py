"""What a configuration may name; an aggregator of this file's own, in one class and one line; memory."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from common.aggregation.aggregator import Aggregator, Arrays, Change, State, moved
from common.aggregation.fedadam import FedAdam
from common.aggregation.fedavg import FedAvg
from common.aggregation.fedavgm import FedAvgM
from common.aggregation.fedyogi import FedYogi
from common.aggregation.registry import AGGREGATORS
from common.config.run import config_from_json, config_from_table, load_config
from common.errors import ConfigError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.schema import ranged
from server.strategy.aggregation import aggregate


@dataclass(frozen=True)
class MidRange:
    """The mean of each value's lowest and highest, `trim` of them left out at either end."""

    name: ClassVar[str] = "mid-range"
    from_sum: ClassVar[bool] = False
    least_sites: ClassVar[int] = 1
    trim: int = ranged(1, 0, 1000)

    def init(self, template: Arrays) -> State:
        del template
        return {}

    def apply(self, state: State, current: Arrays, changes: Iterator[tuple[Change, float]]) -> tuple[Arrays, State]:
        sites = [change for change, _ in changes]
        ordered = {name: np.sort([site[name] for site in sites], axis=0) for name in current}
        ends = [self.trim, len(sites) - self.trim - 1]
        return moved(current, {name: rows[ends].mean(0, dtype=np.float64) for name, rows in ordered.items()}), state


@pytest.fixture
def mid_range(monkeypatch) -> None:
    monkeypatch.setitem(AGGREGATORS, "mid-range", MidRange)


def test_a_configuration_names_its_aggregator_with_or_without_settings(tmp_path) -> None:
    (tmp_path / "short.toml").write_text('[federation]\nstrategy = "fedavgm"\n')
    (tmp_path / "long.toml").write_text('[federation.strategy]\nname = "fedavgm"\nmomentum = 0.5\n')
    assert load_config(tmp_path / "short.toml").federation.strategy == FedAvgM()
    config = load_config(tmp_path / "long.toml", ("server_learning_rate=0.25",))
    assert config.federation.strategy == FedAvgM(0.5, 0.25)
    assert config_from_json(config.to_json()) == config
    assert config_from_table({}).federation.strategy == FedAvg()
    assert config_from_table({"federation": {"strategy": "fedavg"}}).federation.strategy == FedAvg()  # as at 2a60dec


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("fedsgd", r"federation\.strategy: expected one of fedavg, fedavgm"),
        ({"name": "fedavgm", "momentum": 1.0}, r"federation\.strategy\.momentum: expected a number from 0\.0 to 0\.9999"),
        ({"name": "fedavg", "momentum": 0.9}, r"Unknown key 'federation\.strategy\.momentum'"),
    ],
)
def test_what_is_no_aggregator_is_refused_by_name(strategy, says) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_table({"federation": {"strategy": strategy}})


@pytest.mark.usefixtures("mid_range")
def test_an_aggregator_of_ones_own_is_one_class_and_one_line() -> None:
    table = {"name": "mid-range", "trim": 1}
    config = config_from_table({"federation": {"strategy": table}})
    assert config_from_json(config.to_json()) == config
    replies = {
        site: SiteReply(site, 1, update=Update({"w": np.full(2, value, np.float32)}))
        for site, value in zip("abcd", (1, 900, 2, -5), strict=True)
    }
    arrays, _, _ = aggregate(config.federation, {}, {"w": np.ones(2, np.float32)}, replies)
    np.testing.assert_array_equal(arrays["w"], [2.5, 2.5])  # 1 + the mean of 1 and 2


@pytest.mark.usefixtures("mid_range")
@pytest.mark.parametrize("section", ["secure", "site_level"])
def test_what_needs_each_change_by_itself_is_refused_where_the_server_has_the_sum_alone(section: str) -> None:
    with pytest.raises(ConfigError, match=rf'federation\.strategy = "mid-range" cannot run with {section}\.enabled'):
        config_from_table({section: {"enabled": True}, "federation": {"strategy": "mid-range"}})
    config_from_table({section: {"enabled": True}, "federation": {"strategy": "fedavgm"}})


@pytest.mark.parametrize("aggregator", [FedAvg(), FedAvgM(), FedAdam(), FedYogi()], ids=lambda a: a.name)
def test_memory_does_not_grow_with_the_sites(aggregator: Aggregator) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0

    Row: Any = type("Row", (np.ndarray,), {"__hash__": object.__hash__})  # rows must be told apart by what they are

    def changes() -> Iterator[tuple[Change, float]]:
        nonlocal most
        for site in range(50):
            row = np.full(3, site, np.float32).view(Row)
            alive.add(row)
            most = max(most, len(alive))
            yield {"w": row}, 1.0

    current = {"w": np.zeros(3, np.float32)}
    arrays, _ = aggregator.apply(aggregator.init(current), current, changes())
    assert (arrays["w"] > 0).all()
    assert most <= 2  # the one before is let go when the next is there


@pytest.mark.usefixtures("mid_range")
def test_the_count_of_live_changes_can_grow() -> None:
    """The measure above is a measure: what keeps all changes is seen to."""
    with pytest.raises(AssertionError):
        test_memory_does_not_grow_with_the_sites(MidRange(0))
