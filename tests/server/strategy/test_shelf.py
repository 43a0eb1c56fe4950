"""Changes on the shelf are the changes that were put there, one at a time in memory, and the round comes out the same."""

import numpy as np
import pytest

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.round import SiteReply
from common.messages.update import Update
from server.strategy import aggregation
from server.strategy.aggregation import aggregate, influence_of, low_rank_figures
from server.strategy.shelf import Shelf

SITES = 5


def change_of(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {"head.w": (3, 4), "block.qkv.lora_b": (6, 2), "block.qkv.lora_a": (2, 5), "none": (0,), "one": ()}
    return {name: np.asarray(generator.normal(size=shape), np.float32) for name, shape in shapes.items()}


def replies_of(shelf: Shelf | None = None) -> dict[str, SiteReply]:
    updates = {f"s{i}": Update(change_of(i)) for i in range(SITES)}
    kept = {site: shelf.keep(update) if shelf else update for site, update in updates.items()}
    return {s: SiteReply(s, 1, update=kept[s], patients=i + 1, labelled=i + 1, counts_shared=True) for i, s in enumerate(kept)}


def test_what_is_kept_comes_back() -> None:
    shelf = Shelf()
    kept = [shelf.keep(Update(change_of(i))) for i in range(SITES)]
    for i, found in reversed(list(enumerate(kept))):
        expected = change_of(i)
        assert list(found.change) == list(expected)
        for name, array in expected.items():
            assert found.change[name].dtype == np.float32
            np.testing.assert_array_equal(found.change[name], array)
        assert found.norm == Update(expected).norm
    shelf.clear()
    assert shelf.keep(Update(change_of(7))).change["one"] == change_of(7)["one"]


def test_a_full_disk_is_no_fault_of_the_sites(monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    shelf = Shelf()
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(FederationError, match="no room for a round's changes"):
        shelf.keep(Update(change_of(1)))


def test_a_round_from_the_shelf_is_the_round_from_memory() -> None:
    plan, current = RunConfig().federation, change_of(99)
    found = []
    for replies in (replies_of(), replies_of(Shelf())):
        new, _, _ = aggregate(plan, plan.aggregator.init(current), current, replies)
        found.append((new, influence_of(plan, replies), low_rank_figures(plan, current, replies, new)))
    assert found[0][1:] == found[1][1:]
    assert found[0][2]["deviation"] > 0
    for name, array in found[0][0].items():
        assert found[1][0][name].tobytes() == array.tobytes()


def test_a_mean_holds_one_change_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change is asked for once, and only when the mean has done with the one before."""
    plan, current, asked = RunConfig().federation, change_of(99), []
    plain = Shelf.read
    monkeypatch.setattr(Shelf, "read", lambda self, start, shapes: asked.append(start) or plain(self, start, shapes))
    seen = []

    def apply(state, now, changes):
        for _ in changes:
            seen.append(len(asked))
        return now, state

    monkeypatch.setattr(type(plan.aggregator), "apply", lambda _, *arguments: apply(*arguments))
    aggregation.aggregate(plan, {}, current, replies_of(Shelf()))
    assert seen == [1, 2, 3, 4, 5]
