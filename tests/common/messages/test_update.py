"""An update against plain numpy."""

from typing import Any

import numpy as np
import pytest

from common.messages import update as module
from common.messages.update import Update

GENERATOR = np.random.default_rng(0)
RECEIVED = {"b": GENERATOR.normal(size=(3, 2)).astype(np.float32), "a": GENERATOR.normal(size=4).astype(np.float32)}
TRAINED = {name: array + GENERATOR.normal(0, 0.1, array.shape).astype(np.float32) for name, array in RECEIVED.items()}


def test_the_change_is_what_training_made_of_what_was_received() -> None:
    update = Update.between(TRAINED, RECEIVED)
    assert list(update.change) == ["a", "b"]
    for name, change in update.change.items():
        assert change.dtype == np.float32
        np.testing.assert_allclose(RECEIVED[name] + change, TRAINED[name], rtol=2e-7)


def test_an_array_that_was_not_trained_has_a_change_of_exactly_zero() -> None:
    update = Update.between(TRAINED | {"a": RECEIVED["a"].copy()}, RECEIVED)
    assert not update.change["a"].any()
    assert (RECEIVED["a"] + update.change["a"]).tobytes() == RECEIVED["a"].tobytes()


def test_the_norm_is_that_of_all_arrays_together_and_is_worked_out_once(monkeypatch) -> None:
    update = Update.between(TRAINED, RECEIVED)
    every = np.concatenate([(TRAINED[name].astype(np.float64) - RECEIVED[name]).ravel() for name in RECEIVED])
    assert update.norm == pytest.approx(np.linalg.norm(every), rel=1e-6)
    monkeypatch.setattr(module, "norm", lambda _: pytest.fail("worked out again"))
    assert update.norm > 0


def test_nobody_can_tell_a_norm() -> None:
    made: Any = Update
    with pytest.raises(TypeError):
        made({}, 0.0)
