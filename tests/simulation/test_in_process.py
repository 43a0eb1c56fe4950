"""Rounds in this program against a plain loop: models are stubs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.round.train import site_seed
from common.config.run import config_from_table
from common.training.scaffold import LastRound
from simulation import in_process
from simulation.in_process import federate, rounds

SITES: Any = {"a": "a", "b": "b"}
SIZES = {"a": 3, "b": 1}
GAIN = {"a": 0.5, "b": -1.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What each site's round was given; a site moves towards its own number by half the way."""
    asked: list[dict] = []

    def train_round(model, arrays, patients, config, **named):
        asked.append({"arrays": arrays, **named})
        moved = {"w": ((arrays["w"] + GAIN[patients]) / 2).astype(np.float32)}
        return SimpleNamespace(arrays=moved, patients=SIZES[patients], labelled=SIZES[patients])

    monkeypatch.setattr(in_process, "train_round", train_round)
    monkeypatch.setattr(in_process, "get_arrays", lambda _: {"w": np.zeros(2, np.float32)})
    monkeypatch.setattr(in_process, "drift", lambda last, arrays, _, number: (last, arrays, number))
    return asked


def config(strategy: str):
    return config_from_table({"federation": {"rounds": 3, "strategy": strategy}, "seed": 4})


def test_rounds_are_weighted_means_of_what_sites_make_of_the_arrays(asked: list[dict]) -> None:
    found = list(rounds(None, SITES, config("fedavg")))
    value = 0.0
    for number, arrays in enumerate(found, start=1):
        value = (3 * (value + 0.5) / 2 + (value - 1.0) / 2) / 4
        assert arrays["w"] == pytest.approx([value, value])
        seeds = [one["site_seed"] for one in asked if one["round_number"] == number]
        assert seeds == [site_seed(4, name, number) for name in SIZES]
    assert (federate(None, SITES, config("fedavg"))["w"] == found[-1]["w"]).all()
    assert all(one["drift"] is None for one in asked)


def test_scaffold_remembers_each_sites_last_round(asked: list[dict]) -> None:
    list(rounds(None, SITES, config("scaffold")))
    assert [one["drift"] for one in asked[:2]] == [None, None]
    last, arrays, number = asked[3]["drift"]
    assert isinstance(last, LastRound)
    assert last.received is asked[1]["arrays"]
    assert last.own["w"] == pytest.approx([-0.5, -0.5])
    assert arrays is asked[3]["arrays"]
    assert number == 2


def test_what_was_received_is_aggregated(asked: list[dict]) -> None:
    arrays = federate(None, SITES, config("fedavg"), lambda replies: {"b": replies["b"]})
    assert arrays["w"] == pytest.approx([-0.875, -0.875])
