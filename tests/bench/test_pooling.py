"""Stacks of several windows; and a window that is chosen inside the training hospitals, by nothing of the one that is asked."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
FOLDS = ["a", "b", "c+d"]


@pytest.fixture(scope="module")
def pooling():
    sys.path.insert(0, str(BENCH))
    spec = importlib.util.spec_from_file_location("pooling", BENCH / "pooling.py")
    module = sys.modules["pooling"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("pooling", "window_tokens", "options"):
        sys.modules.pop(name, None)
    sys.path.remove(str(BENCH))


def patients_of(pooling, seed: int, told: float):
    """Twelve patients of each of four sites; `told` is how much of the class a CLS token says."""
    rng, found = np.random.default_rng(seed), []
    for site in "abcd":
        for number in range(12):
            label = number % 3
            cls = rng.normal(0, 1, (4, 2, 6)).astype(np.float32)
            cls[:, :, label] += told
            patches, lesion = rng.normal(0, 1, (4, 2, 9, 6)).astype(np.float32), rng.random((4, 9)).astype(np.float32)
            found.append((site, label, pooling.Tokens(cls, patches, lesion, np.ones(2, bool), {2: [0, 3], 3: [0, 1, 3]})))
    return found


def test_windows_are_one_stack_of_the_slices_that_each_chose(pooling) -> None:
    windows = [patients_of(pooling, seed, 0.0) for seed in (1, 2)]
    stack = pooling.stacked(windows, 2)
    site, label, tokens = stack[17]
    assert (site, label, tokens.places) == ("b", 2, {2: [0, 1, 2, 3]})
    first, second = (window[17][2] for window in windows)
    np.testing.assert_array_equal(tokens.cls, np.stack([first.cls[0], first.cls[3], second.cls[0], second.cls[3]]))
    np.testing.assert_array_equal(tokens.lesion[2:], second.lesion[[0, 3]])
    whole = pooling.pooled(tokens, tokens.places[2], pooling.evenly)
    apart = [pooling.pooled(one, [0, 3], pooling.evenly) for one in (first, second)]
    np.testing.assert_allclose(whole, np.mean(apart, axis=0), atol=1e-6)


def test_what_is_chosen_for_a_hospital_reads_nothing_of_it(pooling) -> None:
    good, poor = (pooling.stacked([patients_of(pooling, 3, told)], 3) for told in (1.5, 0.0))
    for other in (good, poor):
        inner = pooling.inner_auroc(other, 3, "mean", FOLDS, 3)
        for number, fold in enumerate(FOLDS):
            spoilt = [(s, (y + 1) % 3 if s in fold.split("+") else y, t) for s, y, t in other]
            assert pooling.inner_auroc(spoilt, 3, "mean", FOLDS, 3)[number] == inner[number]
    trials = [
        pooling.Trial(name, pooling.inner_auroc(given, 3, "mean", FOLDS, 3), pooling.answer(given, 3, "mean", FOLDS, 3))
        for name, given in (("poor", poor), ("good", good))
    ]
    sites = np.array([site for site, _, _ in good])
    best, said = pooling.chosen(trials, FOLDS, sites)
    assert best == dict.fromkeys(FOLDS, "good")
    np.testing.assert_array_equal(said, trials[1].said)
    mixed = [trials[0]._replace(inner=[0.9, 0.1, 0.9]), trials[1]._replace(inner=[0.5, 0.5, 0.5])]
    best, said = pooling.chosen(mixed, FOLDS, sites)
    assert best == {"a": "poor", "b": "good", "c+d": "poor"}
    np.testing.assert_array_equal(said[sites == "b"], trials[1].said[sites == "b"])
    np.testing.assert_array_equal(said[sites == "d"], trials[0].said[sites == "d"])
