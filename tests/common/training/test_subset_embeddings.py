"""Embeddings by subset of modalities: the numbers of the plain way, computed once, and kept only where nothing has changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.models.trained_model import TrainedModel
from common.training import kept
from common.training.forward import embed, forward_batches
from common.training.local import train_round
from common.training.predict import predict, predict_subsets
from common.training.probing import COPIES
from common.training.subset_embeddings import embed_subsets
from common.training.trainable import CENTRE

PATIENTS = 7


def trained_of(**model: Any) -> TrainedModel:
    """A model of which every array has moved."""
    table = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "joint_blocks": 2, "centre_features": True, **model},
        "training": {"head_rounds": 3, "head_steps": 2},
        "objective": {"modality_dropout": 0.3},
        "federation": {"rounds": 4},
        "evaluation": {"batch_size": 3},
    }
    config = config_from_table(table)
    built, generator = build_model(config), np.random.default_rng(1)
    moved = {name: a + generator.normal(0, 0.02, a.shape).astype(np.float32) for name, a in get_arrays(built).items()}
    return TrainedModel(built, moved, config)


def site_of(folder: Path | None = None) -> SiteData:
    generator = np.random.default_rng(0)
    present = generator.random((PATIENTS, 4)) < 0.7
    present[:, 3] = True
    images = generator.random((PATIENTS, 2, 4, 32, 32)) * present[:, None, :, None, None]
    ids = tuple(map(str, range(PATIENTS)))
    return SiteData("s", ids, images.astype(np.float16), present, np.arange(PATIENTS) % 3, "key", folder=folder)


def copies_of(site: SiteData, seed: int = 0) -> np.ndarray:
    """[5, N, M]: the patients whole, then with some of their modalities."""
    fewer = site.present & (np.random.default_rng(seed).random((4, *site.present.shape)) < 0.5)
    fewer[..., 3] |= ~fewer.any(-1)
    return np.concatenate([site.present[None], fewer])


def plain(trained: TrainedModel, site: SiteData, copies: np.ndarray) -> np.ndarray:
    """The whole backbone for each copy."""
    return np.stack([torch.cat(list(forward_batches(trained, site, embed, present=copy))).numpy() for copy in copies])


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_memory", type(kept._memory)())


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many patients went through the first blocks, call by call."""
    calls, alone = list[int](), MultiModalViT.alone

    def counted(self: MultiModalViT, x: torch.Tensor, *more: Any, **named: Any) -> Any:
        calls.append(len(x))
        return alone(self, x, *more, **named)

    monkeypatch.setattr(MultiModalViT, "alone", counted)
    return calls


@pytest.mark.parametrize("joint", [0, 2])
def test_the_numbers_are_those_of_the_plain_way_to_the_last_bit(joint: int) -> None:
    trained, site = trained_of(joint_blocks=joint), site_of()
    assert np.abs(trained.arrays[CENTRE]).max() > 0
    copies = copies_of(site)
    wanted = plain(trained, site, copies)
    assert embed_subsets(trained, site, copies).numpy().tobytes() == wanted.tobytes()
    other = copies_of(site, seed=1)  # some of them known by now
    assert embed_subsets(trained, site, other).numpy().tobytes() == plain(trained, site, other).tobytes()


def test_answers_to_subsets_are_those_of_asking_for_each_alone() -> None:
    trained, site = trained_of(), site_of()
    copies = copies_of(site)
    wanted = {row: list(dict.fromkeys(map(tuple, copies[:, row].tolist()))) for row in (5, 0, 3, 1)}
    found = {(row, subset): said for row, subset, said in predict_subsets(trained, site, wanted)}
    assert len(found) == sum(map(len, wanted.values()))
    for copy in copies:
        alone = predict(trained, site, present=copy)
        for row in wanted:
            # A head of a few rows multiplies in another order than one of many.
            np.testing.assert_allclose(found[row, tuple(copy[row].tolist())], alone[row], rtol=1e-5)


def test_a_head_round_ends_in_the_bytes_of_one_that_knows_nothing(tmp_path: Path, passes: list[int]) -> None:
    trained = trained_of()
    fresh = train_round(trained.model, trained.arrays, site_of(), trained.config, round_number=3, site_seed=5)
    kept.forget()
    site, rounds = site_of(tmp_path), []
    for number in (2, 3):
        del passes[:]
        rounds.append(train_round(trained.model, trained.arrays, site, trained.config, round_number=number, site_seed=number + 2))
        assert sum(passes) == (PATIENTS if number == 2 else 0)  # all subsets at once: every later draw is known
        kept.forget()  # the next round's process reads the disk
    assert COPIES > 1
    for name, array in fresh.arrays.items():
        assert rounds[1].arrays[name].tobytes() == array.tobytes()


def changed(arrays: Arrays, prefix: str) -> Arrays:
    return {name: a + 1 if name.startswith(prefix) else a for name, a in arrays.items()}


OTHERS: dict[str, tuple[Callable[[TrainedModel], TrainedModel], bool]] = {
    "the head": (lambda t: TrainedModel(t.model, changed(t.arrays, "head."), t.config), True),
    "the mean features": (lambda t: TrainedModel(t.model, changed(t.arrays, CENTRE), t.config), True),
    "an adapter": (lambda t: TrainedModel(t.model, changed(t.arrays, "vit."), t.config), False),
    "a token": (lambda t: TrainedModel(t.model, changed(t.arrays, "modality_embedding"), t.config), False),
    "where modalities meet": (
        lambda t: TrainedModel(trained_of(joint_blocks=1).model, t.arrays, trained_of(joint_blocks=1).config),
        False,
    ),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_what_is_below_the_head_decides_whether_an_embedding_still_holds(
    what: str, where: str, tmp_path: Path, passes: list[int]
) -> None:
    trained, site = trained_of(), site_of(tmp_path if where == "disk" else None)
    copies = site.present[None]
    embed_subsets(trained, site, copies)
    if where == "disk":
        kept.forget()
    change, holds = OTHERS[what]
    other = change(trained)
    del passes[:]
    found = embed_subsets(other, site, copies).numpy()
    assert bool(passes) != holds
    assert found.tobytes() == plain(other, site, copies).tobytes()


@pytest.mark.parametrize("damage", [lambda b: b[:-4] + b"\0\0\0\1", lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no"])
def test_a_damaged_file_costs_a_pass_and_no_more(damage: Callable[[bytes], bytes], tmp_path: Path, passes: list[int]) -> None:
    trained, site = trained_of(), site_of(tmp_path)
    first = embed_subsets(trained, site, site.present[None]).numpy()
    kept.forget()
    files = sorted((tmp_path / kept.FOLDER).glob("*/*.safetensors"))
    assert len(files) == PATIENTS
    files[2].write_bytes(damage(files[2].read_bytes()))
    del passes[:]
    assert embed_subsets(trained, site, site.present[None]).numpy().tobytes() == first.tobytes()
    assert passes == [1]


def test_a_patient_is_known_wherever_they_are(passes: list[int]) -> None:
    """Pooled, selected, or in another order: the slices are what counts."""
    trained, site = trained_of(), site_of()
    whole = embed_subsets(trained, site, site.present[None]).numpy()
    del passes[:]
    pooled = SiteData.pool([site.select([4, 1]), site.select([6])], "pooled")
    found = embed_subsets(trained, pooled, pooled.present[None]).numpy()
    assert not passes
    assert found.tobytes() == whole[:, [4, 1, 6]].tobytes()


def test_what_is_kept_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MEMORY", 40_000)
    trained, site = trained_of(), site_of(tmp_path)
    for step in range(kept.IDENTITIES + 2):
        arrays = changed(trained.arrays, "vit.") if step else trained.arrays
        trained = TrainedModel(trained.model, arrays, trained.config)
        embed_subsets(trained, site, site.present[None])
        assert sum(a.nbytes for found in kept._memory.values() for a in found.values()) <= 40_000
    assert len(list((tmp_path / kept.FOLDER).iterdir())) == kept.IDENTITIES
