"""Self-supervised rounds: what they train and by what, how patients weigh in them, and that all others stay what they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.training.local import train_round
from common.training.scaffold import LastRound, drift
from common.training.schedule import Place, place_of
from common.training.trainable import CENTRE, is_centre_round, is_head_round, is_ssl_round, most_trained, trained_names
from common.training.update import LocalUpdate
from server.strategy.aggregation import aggregate, round_plan


def config_of(ssl_rounds: int, *, rounds: int = 3, **sections: Any) -> RunConfig:
    training = {"ssl_rounds": ssl_rounds, "head_rounds": 2, "head_steps": 2, "batch_size": 4, "precision": "fp32"}
    return config_from_table(
        {
            "data": {"size": 32, "slices": 2, "modalities": ["t1", "flair"], "covariates": ["age"]},
            "federation": {"rounds": ssl_rounds + rounds, "unlabelled_weight": 0.3},
            **sections,
            "model": {
                "backbone": "fedmri_vit_mini",
                "weights": "random",
                "blocks": 1,
                "prototypes": 5,
                **sections.get("model", {}),
            },
            "objective": {"local_crops": 1, **sections.get("objective", {})},
            "training": {**training, **sections.get("training", {})},
        }
    )


def site_of(*, labelled: bool = True) -> SiteData:
    generator = np.random.default_rng(0)
    images = generator.random((6, 2, 2, 32, 32)).astype(np.float16)
    labels = np.arange(6) % 3 if labelled else np.full(6, -1)
    ages = generator.integers(20, 80, (6, 1)).astype(np.float32)
    return SiteData("s", tuple("abcdef"), images, np.ones((6, 2), bool), labels, "key", covariates=ages)


def trained(config: RunConfig, number: int, arrays: Arrays | None = None, *, labelled: bool = True) -> LocalUpdate:
    model = build_model(config)
    return train_round(model, arrays or get_arrays(model), site_of(labelled=labelled), config, round_number=number, site_seed=1)


def test_they_train_adapters_tokens_and_projections_by_the_terms_that_need_no_label() -> None:
    config = config_of(1, objective={"terms": {"fixmatch": {"weight": 1.0}, "mean_teacher": {"weight": 1.0}}})
    start = get_arrays(build_model(config))
    update = trained(config, 1)
    changed = {name for name in start if not np.array_equal(start[name], update.arrays[name])}
    assert {"head.hidden.weight", "head.patient.weight", "head.patch.weight", "mask_token"} < changed
    assert any(name.endswith("lora_b") for name in changed)
    assert not {"head.prototypes", "head.covariates.weight"} & changed
    assert changed <= set(trained_names(start, config, 1))
    assert update.metrics["dino"] > 0 < update.metrics["ibot"]
    assert [update.metrics[name] for name in ("classification", "fixmatch", "mean_teacher")] == [0, 0, 0]
    assert update.metrics.keys() == trained(config, 4).metrics.keys()  # Flower averages no others


def test_labels_change_nothing_in_them() -> None:
    labelled, unlabelled = (trained(config_of(1), 1, labelled=known) for known in (True, False))
    assert all(np.array_equal(labelled.arrays[name], unlabelled.arrays[name]) for name in labelled.arrays)


@pytest.mark.parametrize("number", [1, 3])
def test_the_others_are_to_the_byte_what_they_are_in_a_run_without(number: int) -> None:
    """Rates, temperatures and the teacher's momentum included: head round 1 and tuning round 3, after two and after none."""
    without, after = trained(config_of(0), number), trained(config_of(2), number + 2)
    assert all(np.array_equal(without.arrays[name], after.arrays[name]) for name in without.arrays)


def test_the_schedule_is_that_of_a_run_of_their_own() -> None:
    own = config_of(
        0, rounds=3, training={"head_rounds": 0, "warmup_rounds": 2}, objective={"terms": {"classification": {"weight": 0.0}}}
    )
    first = config_of(3, training={"warmup_rounds": 2}, model={"train_tokens": False})
    own = replace(own, model=first.model)
    alone, before = trained(own, 3), trained(first, 3)
    moved = [name for name in alone.arrays if name.rpartition(".")[2] in ("lora_a", "lora_b")]
    start = get_arrays(build_model(own))
    sizes = [np.abs(update.arrays[moved[0]] - start[moved[0]]).max() for update in (alone, before)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)  # Adam moves by the rate; prototypes that stay are all that differs
    assert [place_of(first, number) for number in (1, 3, 4, 6)] == [Place(1, 3), Place(3, 3), Place(1, 3), Place(3, 3)]


def test_each_kind_of_round_is_shifted_and_mean_features_are_measured_after_them() -> None:
    config = config_of(2, model={"centre_features": True}, training={"head_rounds": 3}, rounds=5)
    names = list(get_arrays(build_model(config)))
    numbers = range(1, 8)
    assert [n for n in numbers if is_ssl_round(config, n)] == [1, 2]
    assert [n for n in numbers if is_head_round(config, n)] == [3, 4, 5]
    assert [n for n in numbers if is_centre_round(config, n)] == [3]
    assert [CENTRE in trained_names(names, config, n) for n in numbers] == [False, False, True, False, False, False, False]
    fits = replace(config, model=replace(config.model, pooling=config_of(0, model={"pooling": "guided"}).model.pooling))
    assert [n for n in numbers if is_centre_round(fits, n)] == [4]
    sizes = get_arrays(build_model(config))
    assert most_trained(sizes, config) == sum(sizes[name].size for name in trained_names(sizes, config, 6))


def test_masks_fit_the_pooling_in_the_first_round_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    config = config_of(1)
    monkeypatch.setattr("common.training.local.fitted_pooling", lambda *_: fitted.append(1) or {})
    for number, times in ((1, 0), (2, 1), (3, 1)):
        trained(config, number)
        assert len(fitted) == times


def test_a_factor_that_alternates_begins_anew_after_them() -> None:
    config = config_of(2, model={"adapter": {"factor": "alternate"}})
    names = list(get_arrays(build_model(config)))
    factors = [{n.rpartition(".")[2] for n in trained_names(names, config, k) if ".lora_" in n} for k in (1, 2, 5)]
    assert factors[0] != factors[1]
    assert factors[2] == factors[0]


def test_an_unlabelled_patient_weighs_as_much_as_a_labelled_one_in_them() -> None:
    config = config_of(1)
    assert [round_plan(config.federation, config, number).unlabelled_weight for number in (1, 4)] == [1.0, 0.3]


@pytest.mark.parametrize(("model", "weights"), [({}, [0.01, 0.01, 0.3]), ({"centre_features": True}, [0.3, 0.01, 0.3])])
def test_an_unlabelled_patient_weighs_next_to_nothing_where_they_change_nothing(model, weights) -> None:
    config = config_of(0, model=model)
    assert [round_plan(config.federation, config, number).unlabelled_weight for number in (1, 2, 3)] == weights
    start = get_arrays(build_model(config))
    for number, weight in enumerate(weights, 1):
        after = trained(config, number, start, labelled=False).arrays
        still = all(np.array_equal(start[name], after[name]) for name in start)
        assert still is (weight < 0.3)  # what they weigh is what they change


def test_a_head_learns_as_fast_beside_hospitals_without_labels() -> None:
    config = config_of(0)
    start = {"head.w": np.zeros(2, np.float32)}
    update = Update({"head.w": np.array([1.0, -1.0], np.float32)})
    replies = {"a": SiteReply("a", 1, update=update, patients=8, labelled=8, counts_shared=True)}
    for name in "bcd":
        nothing = Update({"head.w": np.zeros(2, np.float32)})
        replies[name] = SiteReply(name, 1, update=nothing, patients=80, labelled=0, counts_shared=True)
    arrays, _, _ = aggregate(round_plan(config.federation, config, 1), {}, start, replies)
    np.testing.assert_allclose(arrays["head.w"], [8 / 10.4, -8 / 10.4], rtol=1e-6)  # by the configured 0.3: 0.1


def test_who_gives_the_unlabelled_no_weight_at_all_is_obeyed() -> None:
    config = config_of(0, federation={"rounds": 3, "unlabelled_weight": 0.0})
    assert [round_plan(config.federation, config, number).unlabelled_weight for number in (1, 2, 3)] == [0.0] * 3


def test_scaffold_corrects_no_round_by_one_of_another_kind() -> None:
    config = config_of(2, rounds=5, federation={"rounds": 7, "strategy": "scaffold"})
    start = get_arrays(build_model(config))
    last = LastRound(start, {name: np.ones_like(array) for name, array in start.items()})
    assert [bool(drift(last, start, config, number)) for number in range(2, 8)] == [True, False, True, False, True, True]


WITHOUT = {name: {"weight": 0.0} for name in ("dino", "ibot")}


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"privacy": {"enabled": True}, "objective": {"local_crops": 0}},
            r"ssl_rounds = 2 cannot run with privacy\.enabled.*bounded",
        ),
        ({"objective": {"terms": WITHOUT}}, r"ssl_rounds = 2 needs objective\.terms\.dino\.weight or objective\.terms\.ibot"),
        ({"objective": {"terms": WITHOUT | {"fedprox": {"weight": 1.0}}}}, "ssl_rounds = 2 needs objective"),
        (
            {"federation": {"rounds": 3}},
            r"ssl_rounds = 2 and training\.head_rounds = 2 need federation\.rounds of 4 or more, got 3",
        ),
        ({"federation": {"rounds": 2}, "training": {"head_rounds": 0}}, r"need federation\.rounds of 3 or more, got 2"),
        ({"federation": {"rounds": 4}, "model": {"pooling": "attention"}}, r"after training\.ssl_rounds = 2 leaves none"),
    ],
)
def test_what_could_not_be_is_refused_by_name(sections: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config_of(2, **sections)
