import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.errors import FederationError
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.local import train_round
from common.training.predict import frozen_features, predict


def config_of(**sections: dict[str, object]) -> RunConfig:
    base: dict[str, dict[str, object]] = {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random"},
        "training": {"batch_size": 6, "precision": "fp32", "warmup_rounds": 0},
        "federation": {"rounds": 4},
    }
    return config_from_table({name: {**base.get(name, {}), **sections.get(name, {})} for name in base.keys() | sections.keys()})


def site_of(patients: int = 12, *, labelled: bool = True, seed: int = 0) -> SiteData:
    """Three classes that brightness tells apart, on patients with different modalities."""
    generator = np.random.default_rng(seed)
    labels = np.arange(patients) % 3
    images = generator.random((patients, 2, 4, 32, 32)) * 0.3 + labels.reshape(-1, 1, 1, 1, 1) * 0.33
    present = generator.random((patients, 4)) < 0.7
    present[:, 0] |= ~present.any(1)
    known = labels if labelled else np.full(patients, -1)
    ids = tuple(f"sub-{i}" for i in range(patients))
    return SiteData("site", ids, images.astype(np.float16), present, known.astype(np.int64), "key")


def test_state_goes_in_and_comes_out() -> None:
    """The same input gives the same bytes; neither the model nor the input is changed."""
    config, site = config_of(), site_of()
    model = build_model(config)
    start = get_arrays(model)
    kept = {name: array.copy() for name, array in start.items()}
    first = train_round(model, start, site, config, round_number=1, site_seed=5)
    second = train_round(model, start, site, config, round_number=1, site_seed=5)
    other = train_round(model, start, site, config, round_number=1, site_seed=6)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in start)
    assert any(not np.array_equal(first.arrays[name], other.arrays[name]) for name in start)
    assert all(np.array_equal(start[name], kept[name]) for name in start)
    assert all(np.array_equal(get_arrays(model)[name], kept[name]) for name in start)
    assert (first.patients, first.labelled) == (12, 12)


@pytest.mark.slow
def test_it_learns_what_can_be_learned() -> None:
    config = config_of(training={"local_epochs": 20, "head_learning_rate": 3e-3, "learning_rate": 1e-3}, federation={"rounds": 1})
    model = build_model(config)
    update = train_round(model, get_arrays(model), site_of(24), config, round_number=1, site_seed=0)
    unseen = site_of(30, seed=9)
    probabilities = predict(TrainedModel(model, update.arrays, config), unseen)
    assert (probabilities.argmax(1) == unseen.labels).mean() > 0.8
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_an_unlabelled_site_trains_with_the_rest_of_the_objective() -> None:
    config, site = config_of(), site_of(labelled=False)
    model = build_model(config)
    update = train_round(model, get_arrays(model), site, config, round_number=1, site_seed=0)
    assert update.labelled == 0
    assert update.metrics["classification"] == 0
    assert update.metrics["dino"] > 0
    assert not np.array_equal(update.arrays["head.prototypes"], get_arrays(model)["head.prototypes"])


def test_first_rounds_may_train_the_head_alone() -> None:
    config, site = config_of(training={"head_rounds": 2}), site_of()
    model = build_model(config)
    start = get_arrays(model)
    probing = train_round(model, start, site, config, round_number=2, site_seed=0)
    tuning = train_round(model, start, site, config, round_number=3, site_seed=0)
    changed = {name for name in start if not np.array_equal(start[name], probing.arrays[name])}
    assert "head.prototypes" in changed
    assert all(name.startswith("head.") for name in changed)
    assert any("lora" in name and not np.array_equal(start[name], tuning.arrays[name]) for name in start)
    assert probing.metrics.keys() == tuning.metrics.keys()  # Flower wants the same keys of every site in every round


def test_probing_reaches_what_logistic_regression_on_the_same_features_reaches() -> None:
    config = config_of(
        training={"head_rounds": 1, "head_steps": 300, "head_learning_rate": 3e-3},
        objective={"modality_dropout": 0.0},
        model={"head_hidden": 0},
    )
    model, site, unseen = build_model(config), site_of(24), site_of(30, seed=9)
    arrays = train_round(model, get_arrays(model), site, config, round_number=1, site_seed=0).arrays
    with torch.inference_mode():
        train, test = (model(*s.take(range(len(s)))[:2]).embedding.numpy() for s in (site, unseen))
    theirs = LogisticRegression(max_iter=5000).fit(train, site.labels).score(test, unseen.labels)
    ours = (predict(TrainedModel(model, arrays, config), unseen).argmax(1) == unseen.labels).mean()
    assert ours >= theirs - 0.1


def test_probing_leaves_an_unlabelled_sites_arrays_as_they_were() -> None:
    config = config_of(training={"head_rounds": 1})
    model = build_model(config)
    start = get_arrays(model)
    update = train_round(model, start, site_of(labelled=False), config, round_number=1, site_seed=0)
    assert all(np.array_equal(start[name], update.arrays[name]) for name in start)


@pytest.mark.parametrize("term", ["dino", "ibot", "koleo", "classification"])
def test_a_term_of_weight_zero_is_off(term: str) -> None:
    config, site = config_of(objective={"terms": {term: {"weight": 0.0}}}), site_of()
    model = build_model(config)
    metrics = train_round(model, get_arrays(model), site, config, round_number=1, site_seed=0).metrics
    assert metrics[term] == 0


def test_a_one_patient_site_trains() -> None:
    config = config_of()
    model = build_model(config)
    update = train_round(model, get_arrays(model), site_of(1), config, round_number=1, site_seed=0)
    assert all(np.isfinite(array).all() for array in update.arrays.values())


def test_arrays_of_another_model_are_refused() -> None:
    config = config_of()
    model = build_model(config)
    wrong = get_arrays(build_model(config_of(model={"rank": 4})))
    with pytest.raises(FederationError, match="lora"):
        train_round(model, wrong, site_of(), config, round_number=1, site_seed=0)


def test_leaving_out_modalities_is_the_same_as_not_having_them() -> None:
    config, site = config_of(), site_of()
    model = build_model(config)
    arrays = get_arrays(model)
    only = np.zeros_like(site.present)
    only[np.arange(12), site.present.argmax(1)] = True
    lacking = SiteData(site.name, site.ids, site.images, only, site.labels, site.key)
    np.testing.assert_array_equal(
        predict(TrainedModel(model, arrays, config), site, present=only), predict(TrainedModel(model, arrays, config), lacking)
    )


@torch.inference_mode()
def test_frozen_features_are_the_plain_backbones() -> None:
    config, site = config_of(), site_of(3)
    model = build_model(config)
    features = frozen_features(model, site, config)
    assert features.shape == (3, 4, 320)
    assert np.array_equal(np.isnan(features).any(2), ~site.present)
    m = int(site.present[1].argmax())
    images = (torch.from_numpy(site.images[1][:, m].astype(np.float32)).unsqueeze(1).repeat(1, 3, 1, 1) - 0.5) / 0.5
    tokens = model.vit.forward_features(images)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1).mean(0)
    np.testing.assert_allclose(features[1, m], expected.numpy(), rtol=1e-4, atol=1e-5)
