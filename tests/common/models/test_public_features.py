"""Public features: against the plain formula, and the same at a site that has no file of them."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.cli import config_path
from common.config.run import RunConfig, config_from_table, load_config
from common.data.dataset import SiteData
from common.errors import ConfigError, FedMRIError, WeightsError
from common.model_files.dense import DenseModel
from common.model_files.exported import merge_trained, save_exported
from common.model_files.open import open_saved, read_saved
from common.models.arrays import get_arrays, load_arrays, save_arrays, set_arrays
from common.models.build import build_model
from common.models.embedding import patient_embedding
from common.models.public_features import CENTRE, PROJECTION, QUERY, SHIPPED_PUBLIC
from common.models.trained_model import TrainedModel
from common.training.predict import predict
from common.training.private import private_round
from common.training.probing import head_rule
from common.training.trainable import trained_names
from simulation.phantom.parts import PARTS, Dissected
from simulation.public import learned

M, WIDTH, EDGE = 2, 8, 32


def config_of(public: Path | str, **model: Any) -> RunConfig:
    terms = {"classification": 1.0, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
    chosen = {"backbone": "fedmri_vit_mini", "weights": "random", "head": "linear", "head_hidden": 0, "joint_blocks": 2}
    return config_from_table(
        {
            "data": {"size": EDGE, "slices": 2, "modalities": ["t1", "flair"]},
            "model": chosen | {"pooling": "taught", "public_features": str(public), "public_width": WIDTH} | model,
            "objective": {"local_crops": 0, "terms": {name: {"weight": weight} for name, weight in terms.items()}},
            "training": {"precision": "fp32", "head_rounds": 2, "warmup_rounds": 0},
            "privacy": {"enabled": True, "steps": 3, "sample_rate": 1.0, "noise_multiplier": 1.0},
            "federation": {"rounds": 2},
        }
    )


def dissected(patients: int = 24) -> list[Dissected]:
    generator = np.random.default_rng(3)
    shape = (patients, 2, len(PARTS), EDGE // 8, EDGE // 8)
    images, parts = (
        generator.random((patients, 2, M, EDGE, EDGE)),
        generator.dirichlet(np.ones(len(PARTS)), shape[:2] + shape[3:]),
    )
    return [
        Dissected(*pair) for pair in zip(images.astype(np.float16), np.moveaxis(parts, -1, 2).astype(np.float16), strict=True)
    ]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("public") / "public.safetensors"
    config = config_of(path)
    model = build_model(config, public="nowhere").eval()
    arrays = learned(model, dissected(), lambda what, done, total: None)
    save_arrays(path, arrays, {"config": config.to_json(), "backbone": model.backbone_sha256})
    return path


def site_of(patients: int = 7) -> SiteData:
    generator = np.random.default_rng(0)
    present = np.ones((patients, M), bool)
    present[1, 0] = False
    labels = np.array([0, 1, 2, -1, 0, 1, 2][:patients], np.int64)
    images = generator.random((patients, 2, M, EDGE, EDGE)).astype(np.float16)
    return SiteData("s", tuple(map(str, range(patients))), images, present, labels, "key")


def test_the_head_sees_the_unit_vector_of_what_is_left_along_the_directions(public: Path) -> None:
    model = build_model(config_of(public)).eval()
    arrays = get_arrays(model)
    assert model.pool["query"].abs().max() > 0
    np.testing.assert_allclose(arrays[PROJECTION] @ arrays[PROJECTION].T, np.eye(WIDTH), atol=1e-5)
    x, present = torch.from_numpy(site_of().images).float(), torch.from_numpy(site_of().present)
    with torch.no_grad():
        cls, patches = model.features(x, present)
        found = model.embed(cls, patches, present).numpy()
        plain = patient_embedding(cls, patches, present, model.token_weights(patches)).numpy()
    for row, here in enumerate(present.numpy()):
        parts = plain[row].reshape(1 + M, -1).astype(np.float64)
        for part, there in enumerate([True, *here]):
            if there:
                parts[part] -= arrays[CENTRE][part] * parts.shape[1] ** 0.5
        kept = arrays[PROJECTION].astype(np.float64) @ parts.ravel()
        np.testing.assert_allclose(found[row], kept / np.linalg.norm(kept), atol=1e-5)


def test_mean_and_directions_are_those_of_the_public_patients(public: Path) -> None:
    """Of whom the features along the first directions vary most, about a mean of zero."""
    model, patients = build_model(config_of(public)).eval(), dissected()
    x = torch.from_numpy(np.stack([one.images for one in patients])).float()
    present = torch.ones(len(x), M, dtype=torch.bool)
    with torch.no_grad():
        cls, patches = model.features(x, present)
        less = model.centred(patient_embedding(cls, patches, present, model.token_weights(patches)), present).numpy()
    np.testing.assert_allclose(less.mean(0), 0, atol=1e-4)
    kept = less @ get_arrays(model)[PROJECTION].T
    spread = kept.var(0)
    assert (np.diff(spread) <= 1e-5).all()
    np.testing.assert_allclose(spread, np.linalg.eigvalsh(np.cov(less.T, bias=True))[::-1][:WIDTH], rtol=1e-3)


def test_private_rounds_move_the_head_alone_and_a_site_needs_no_file(public: Path) -> None:
    config, patients = config_of(public), site_of()
    still = replace(config, privacy=replace(config.privacy, noise_multiplier=0.0))
    arrays = get_arrays(build_model(config))
    updates = [
        private_round(model, arrays, patients, still, round_number=1, site_seed=0, charge=lambda charge: None).arrays
        for model in (build_model(config), build_model(config, public="wire"))
    ]
    moved = {name for name, array in updates[0].items() if not np.array_equal(array, arrays[name])}
    assert moved == {"head.patient.weight", "head.patient.bias"}
    assert arrays["head.patient.weight"].size + arrays["head.patient.bias"].size == 3 * WIDTH + 3
    for name, array in updates[0].items():
        np.testing.assert_array_equal(array, updates[1][name])
    answers = [
        predict(TrainedModel(model, updates[0], config), patients)
        for model in (build_model(config), build_model(config, public="wire"))
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], 1 / 3)


def test_a_saved_model_and_an_export_need_no_file(public: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(public.read_bytes())
    config, patients = config_of(own), site_of()
    model = build_model(config)
    arrays = get_arrays(model)
    arrays["head.patient.weight"] = np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)
    truth = predict(TrainedModel(model, arrays, config), patients)
    about = {"config": config.to_json(), "backbone": model.backbone_name, "backbone_sha256": model.backbone_sha256}
    save_arrays(tmp_path / "model.safetensors", arrays, about | {"initial_sha256": "", "round": "1"})
    plain, untouched = merge_trained(build_model(config), arrays)
    save_exported(tmp_path / "exported.safetensors", plain, untouched, config, None)
    own.unlink()
    for name, tolerance in (("model.safetensors", 0.0), ("exported.safetensors", 1e-5)):
        opened = open_saved(read_saved(tmp_path / name))
        found = predict(TrainedModel(opened.model, opened.arrays, opened.config), patients)
        np.testing.assert_allclose(found, truth, atol=tolerance, rtol=0)
    x, present = torch.from_numpy(patients.images).float(), torch.from_numpy(patients.present)
    dense = DenseModel(plain.eval(), 3, config.objective.student_temperature)
    with torch.no_grad():
        np.testing.assert_allclose(dense(x, present).numpy(), truth, atol=1e-4)


def test_plain_head_rounds_learn_on_the_same_features(public: Path) -> None:
    config = config_of(public)
    plain = replace(config, privacy=replace(config.privacy, enabled=False))
    model, patients = build_model(plain), site_of()
    arrays = get_arrays(model)
    rule = head_rule(model, arrays, patients, plain, torch.Generator().manual_seed(0), 1)
    head = {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in arrays.items() if name.startswith("head.")}
    point: Any = type("Point", (), {"trained": head, "received": head})
    outputs = rule.outputs(point)
    whole = outputs.embeddings[0][: len(patients.labelled)].numpy()
    set_arrays(model, arrays)
    rows = patients.labelled
    with torch.no_grad():
        truth = model.embed(
            *model.features(
                torch.from_numpy(np.asarray(patients.images)[rows]).float(), torch.from_numpy(patients.present[rows])
            ),
            torch.from_numpy(patients.present[rows]),
        ).numpy()
    np.testing.assert_allclose(whole, truth, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"public_features": "nowhere.safetensors"}, "no such file"),
        ({"public_width": 1000}, "holds 24 directions"),
        ({"pooling": "mean"}, "made with model.pooling = Taught"),
        ({"joint_blocks": 1}, "made with model.joint_blocks = 2, and the run has 1"),
        ({"public_features": ""}, "needs model.public_features"),
        ({"centre_features": True}, "a mean of their own"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(public: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(FedMRIError, match=re.escape(said)):
        build_model(config_of(change.pop("public_features", public), **change))


def test_the_shipped_file_is_the_one_that_is_documented_and_fits_the_private_recipe() -> None:
    file = SHIPPED_PUBLIC["phantom-tissue"]
    sha256 = "64b012c4aec923b373e0a2d644eb1079c98bf9c2cf7d6ed21553cc4060199e17"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    assert sha256 in (Path(__file__).parents[3] / "docs" / "results.md").read_text()
    config = load_config(config_path("private"))
    arrays = get_arrays(build_model(config))
    assert sum(arrays[name].size for name in trained_names(arrays, config, 1)) == 99


def test_files_of_something_else_are_refused(tmp_path: Path, public: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_arrays(other, {QUERY: np.zeros((M, 4), np.float32)}, {})
    with pytest.raises(WeightsError, match="expected the arrays"):
        build_model(config_of(other))
    config = config_of(public)
    for change, said in (
        ({"modalities": ("t1", "t2")}, "data.modalities"),
        ({"field_of_view": 80.0}, "data.field_of_view = 112.0, and the run has 80.0"),
        ({"intensity": "zscore"}, "data.intensity"),
        ({"slices": 3}, "data.slices = 2, and the run has 3"),
    ):
        with pytest.raises(ConfigError, match=f"made with {re.escape(said)}"):
            build_model(replace(config, data=replace(config.data, **change)))
    arrays, about = load_arrays(public)
    save_arrays(other, arrays, {name: value for name, value in about.items() if name != "config"})
    with pytest.raises(WeightsError, match="does not say what it was made with"):
        build_model(config_of(other))
