"""A made-up run is released once; the files are then looked at by onnxruntime, MONAI and `fedmri-site`'s own reader."""

import csv
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle.properties import InferProperties
from monai.bundle.scripts import verify_metadata
from monai.bundle.workflows import ConfigWorkflow
from monai.utils.enums import BundleProperty
from torch.func import functional_call

from common.config.run import config_from_table
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.errors import ConfigError, FedMRIError
from common.evaluation.calibration.calibration import CALIBRATION_NAME, Calibration, save_calibration
from common.model_files.open import open_saved, read_saved
from common.models.arrays import get_arrays, save_arrays
from common.models.build import build_model
from server.cli.main import main
from server.release import equivalence as check
from server.release import export, graphs
from server.release.card import model_card
from server.report.publish import write_report
from server.report.report import decode, read_report
from server.report.results import complete
from server.run.federate import model_metadata
from tests.server.report.report_samples import CLASSES, bare, whole

BRATS = """
patients = "BraTS2021_00006"
data = "{data}"
[files]
t1 = "t1.nii.gz"
t1c = "t1ce.nii.gz"
t2 = "t2.nii.gz"
flair = "flair.nii.gz"
mask = "seg.nii.gz"
"""
# What MONAI's specification of metadata.json asks for; its own schema file is on a server.
SCHEMA = {
    "type": "object",
    "required": [
        *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "task", "description"),
        *("required_packages_version", "authors", "copyright", "network_data_format"),
    ],
    "properties": {
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tensor"}},
        },
    },
    "$defs": {
        "tensor": {
            "type": "object",
            "required": [
                "type",
                "format",
                "num_channels",
                "spatial_shape",
                "dtype",
                "value_range",
                "is_patch_data",
                "channel_def",
            ],
        }
    },
}


OFFSETS = (0.9, -1.5, 0.6)


def make_run(folder, weights="phantom", **data):
    """A run's folder as `server.run.federate` leaves it, its arrays made up; returns its configuration."""
    table = {"backbone": "fedmri_vit_mini", "weights": weights, "blocks": 2, "joint_blocks": 2, "head_hidden": 0}
    config = config_from_table({"data": {"size": 64, "slices": 2, **data}, "model": table})
    model, rng = build_model(config), np.random.default_rng(0)
    arrays = {n: (a + rng.normal(0, 0.05, a.shape)).astype(np.float32) for n, a in get_arrays(model).items()}
    save_arrays(folder / "model.safetensors", arrays, model_metadata(config, model))
    save_calibration(
        folder / CALIBRATION_NAME, Calibration(temperature=1.7, offsets=OFFSETS), {"ood.count": np.ones(4, np.float32)}
    )
    write_report(folder, whole())
    return config


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The run, the release, and the folder of the keys."""
    home = tmp_path_factory.mktemp("export")
    make_run(home / "run")
    assert main(["release-key", str(home / "keys"), "--no-passphrase"]) == 0
    arguments = ["export", str(home / "run"), "--out", str(home / "release"), "--key", str(home / "keys/release.key")]
    assert main(arguments) == 0
    return home / "run", home / "release", home / "keys"


def patients():
    x = torch.rand(3, 2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]]).bool()


def expected(run, x, present):
    """The run's own model, asked without any of the code that exports."""
    opened = open_saved(read_saved(run))
    arrays = {name: torch.from_numpy(array) for name, array in opened.arrays.items()}
    with torch.inference_mode():
        cosines = functional_call(opened.model, arrays, (x, present)).logits[:, :3].double()
    return (cosines / opened.config.objective.student_temperature / 1.7 + torch.tensor(OFFSETS)).softmax(-1).numpy()


@pytest.mark.slow
def test_a_release_is_whole_verified_and_names_no_machine(released):
    _, release, keys = released
    files = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    assert {"model.safetensors", "model.onnx", "MODEL_CARD.md", "LICENSE", "MANIFEST.json", "MANIFEST.json.minisig"} <= files
    assert {f"bundle/{n}" for n in ("configs/inference.json", "configs/metadata.json", "models/model.ts", "LICENSE")} <= files
    assert main(["verify", str(release), "--key", str(keys / "release.pub")]) == 0
    for name in files:
        content = (release / name).read_bytes()
        assert b"site-packages" not in content, name
        assert str(release.parent).encode() not in content, name
    card = (release / "MODEL_CARD.md").read_text()
    assert card in (release / "bundle/docs/README.md").read_text()


def test_the_safetensors_file_needs_nothing_else(released, tmp_path, monkeypatch):
    run, release, _ = released
    monkeypatch.setattr(
        "common.models.backbones.create.find_weights", lambda weights: pytest.fail("the backbone's own file was asked for")
    )
    opened = open_saved(read_saved(release / "model.safetensors"))
    monkeypatch.undo()
    x, present = patients()
    arrays = {name: torch.from_numpy(array) for name, array in opened.arrays.items()}
    with torch.inference_mode():
        cosines = functional_call(opened.model, arrays, (x, present)).logits[:, :3].double()
    assert opened.calibration.offsets == tuple(OFFSETS)
    found = (cosines / 0.1 / opened.calibration.temperature + torch.tensor(opened.calibration.offsets)).softmax(-1)
    np.testing.assert_allclose(found, expected(run, x, present), atol=1e-5)


def test_onnx_takes_any_batch(released):
    run, release, _ = released
    session = onnxruntime.InferenceSession(release / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["images", "present"]
    assert session.get_outputs()[0].name == "probabilities"
    x, present = patients()
    truth = expected(run, x, present)
    for rows in (slice(0, 3), slice(1, 2)):
        found = session.run(None, {"images": x[rows].numpy(), "present": present[rows].numpy()})[0]
        np.testing.assert_allclose(found, truth[rows], atol=1e-4)


def test_monai_takes_the_bundles_metadata_and_properties(released, tmp_path):
    bundle = released[1] / "bundle"
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    metadata = bundle / "configs/metadata.json"
    verify_metadata(meta_file=str(metadata), filepath=str(tmp_path / "schema.json"))
    inference = str(bundle / "configs/inference.json")
    workflow: Any = ConfigWorkflow(config_file=inference, meta_file=str(metadata), workflow_type="infer", logging_file=False)
    properties: Any = InferProperties
    asked = [entry["id"] for entry in properties.values() if entry[BundleProperty.REQUIRED]]
    assert [name for name in asked if name not in workflow.parser] == []
    shapes = json.loads(metadata.read_text())["network_data_format"]["inputs"]["image"]
    assert (shapes["num_channels"], shapes["spatial_shape"]) == (2, [4, 64, 64])


def run_monai(bundle, scratch, *arguments):
    command = [sys.executable, "-B", "-m", "monai.bundle", "run", "--config_file", str(bundle / "configs/inference.json")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*command, *arguments], cwd=scratch, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_monai_finds_patients_in_a_folder_and_writes_a_table(released, tmp_path):
    run, release, keys = released
    opened = open_saved(read_saved(run))
    site = check.made_up_site(tmp_path / "site", opened.config.data)
    done = run_monai(release / "bundle", tmp_path, "--dataset_dir", str(site), "--output", "table.csv")
    assert done.returncode == 0, done.stderr
    cases = read_site(site, opened.config, simulated=True).cases
    truth = check._probabilities(opened, check._patients(cases, opened.config.data)[1])
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [case.id for case in cases]
    np.testing.assert_allclose([[float(row[name]) for name in opened.config.task.classes] for row in rows], truth, atol=1e-4)
    assert rows[1]["modalities"] == "flair"
    assert main(["verify", str(release), "--key", str(keys / "release.pub")]) == 0  # MONAI left nothing in it


@pytest.mark.slow
@pytest.mark.real_data
def test_real_patients_get_the_same_from_every_file(released, real_data, tmp_path):
    run, release, _ = released
    trained = open_saved(read_saved(run))
    (tmp_path / "site.toml").write_text(BRATS.format(data=real_data / "cases"))
    for site in (tmp_path, real_data / "tcga-lgg" / "fg"):
        found: Any = check.check_files(release, trained, site)
        assert [entry["file"] for entry in found] == ["model.safetensors", "model.onnx", "bundle"]
        assert all(entry["difference"] <= 1e-4 and entry["source"] == "patients of a site" for entry in found)


@pytest.mark.slow
@pytest.mark.real_data
def test_deit_tiny_on_real_patients(real_data, real_weights, tmp_path):
    table = {"modalities": ["t1", "t1c", "flair"], "size": 224, "slices": 2}
    model = {"backbone": "deit_tiny_patch16_224", "weights": str(real_weights), "blocks": 2, "joint_blocks": 2, "head_hidden": 0}
    config = config_from_table({"data": table, "model": model})
    built = build_model(config)
    rng = np.random.default_rng(0)
    arrays = {n: (a + rng.normal(0, 0.03, a.shape)).astype(np.float32) for n, a in get_arrays(built).items()}
    save_arrays(tmp_path / "run" / "model.safetensors", arrays, model_metadata(config, built))
    write_report(tmp_path / "run", whole())
    site = real_data / "tcga-lgg" / "cs"
    arguments = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--unsigned", "--check", str(site)]
    assert main([*arguments, "--weights", str(real_weights)]) == 0
    assert "patients of a site" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def stub(monkeypatch):
    """Leave out what takes seconds."""
    monkeypatch.setattr(export, "write_onnx", lambda path, *_: path.write_bytes(b"onnx"))
    monkeypatch.setattr(export, "write_bundle", lambda folder, *_: (folder / "docs").mkdir(parents=True))


def test_a_file_that_differs_ends_in_no_release_at_all(released, tmp_path, monkeypatch, capsys):
    run = released[0]
    stub(monkeypatch)

    def another(path, patients):
        return check._probabilities(open_saved(read_saved(run)), patients) + np.array([2e-4, -2e-4, 0])

    monkeypatch.setattr(check, "_onnx", another)
    monkeypatch.setattr(check, "_bundle", lambda bundle, cases, *_: np.full((len(cases), 3), 1 / 3))
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--unsigned"]) == 1
    error = capsys.readouterr().err
    assert "model.onnx: patient sub-noise" in error
    assert "differs by 2.0e-04" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [np.full((2, 3), np.nan), np.full((1, 3), 1 / 3)])
def test_no_answer_is_no_agreement(wrong):
    patients = SiteData("s", ("a", "b"), np.zeros((2, 1, 1, 1, 1), np.float16), np.ones((2, 1), bool), np.zeros(2, int), "k")
    with pytest.raises(FedMRIError, match="expected"):
        check._compare("model.onnx", patients, np.full((2, 3), 1 / 3), wrong)


def test_a_bundle_that_does_not_run_is_named(tmp_path, released, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    opened = open_saved(read_saved(released[0]))
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    with pytest.raises(FedMRIError, match="bundle: MONAI ended with code"):
        check._bundle(tmp_path / "bundle", (), opened, tmp_path)


def test_a_release_is_never_written_over(released, capsys):
    assert main(["export", str(released[0]), "--out", str(released[1]), "--unsigned"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_release_without_room_is_no_traceback_and_leaves_nothing(released, tmp_path, monkeypatch, capsys):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "file").touch()
    assert main(["export", str(released[0]), "--out", str(tmp_path / "file" / "out"), "--unsigned"]) == 1
    assert "file" in capsys.readouterr().err
    monkeypatch.setattr(export, "write_onnx", full)
    assert main(["export", str(released[0]), "--out", str(tmp_path / "out"), "--unsigned"]) == 1
    error = capsys.readouterr().err
    assert "model.onnx: No space left on device. No release was made" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(ConfigError, match=r"needs onnxscript: .*extra `export`"):
        graphs.require_packages()


def test_other_weights_than_the_trained_ones_are_refused(tmp_path, capsys):
    config = make_run(tmp_path / "run", weights="random")
    other = replace(config, seed=5)
    metadata = {"backbone": "fedmri_vit_mini", "backbone_sha256": "0" * 64, "classes": "[]", "config": other.to_json()}
    save_arrays(tmp_path / "run" / "model.safetensors", get_arrays(build_model(config)), metadata)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--unsigned"]) == 1
    assert "trained on weights with SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def card(report, **data):
    table = {"model": {"backbone": "vit_small_patch14_dinov2.lvd142m"}, "data": data}
    done = [{"file": "model.onnx", "patients": 3, "difference": 3e-8, "source": "seeded noise"}]
    return model_card(decode(report), config_from_table(table), "ab" * 32, "merged into the weights", done)


def test_the_card_holds_what_the_report_knows_and_says_what_it_does_not(tmp_path):
    write_report(tmp_path, whole())
    report = read_report(tmp_path)
    text = card(report)
    mcc = report["external"]["mcc"]
    assert f"| mcc | {mcc['value']:.3f} ({mcc['low']:.3f} to {mcc['high']:.3f}) |" in text
    labels = [p["label"] for p in report["patients"]]
    counts = " | ".join(str(sum(label == c for label in labels)) for c in range(3))
    modalities = " | ".join(str(sum(m in p["modalities"] for p in report["patients"])) for m in ("t1", "t1c", "t2", "flair"))
    assert f"| coast | measured | {len(labels)} | {counts} | {modalities} |" in text
    assert "Temperature 1.400" in text
    assert "no medical device" in text
    assert "apache-2.0" in text
    assert "| model.onnx | 3 | 3.0e-08 | seeded noise |" in text
    lines = text.splitlines()
    ends = [(a, b) for a, b in itertools.pairwise(lines) if a.startswith("|") != b.startswith("|")]
    assert all("" in pair for pair in ends), "without an empty line beside it, a table swallows the next sentence"


def test_what_a_hospital_keeps_is_not_told():
    provenance = {"data": {"sites": ["north"]}, "external": "coast"}
    assert "| north | trained | not reported |" in card(complete({"external": whole()["external"], "provenance": provenance}))


def test_a_card_of_a_report_that_holds_nothing():
    text = card(bare([0, 1, 2]))
    assert "Not measured." in text
    assert "no proven bound" in text
    assert "None: probabilities are the model's own." in text


def test_a_name_is_no_markup():
    text = card(whole(name="a|b<script>[x](y)\nc"))
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "a\\|b\\<script\\>\\[x\\](y) c" in text
    assert set(CLASSES) <= set(text.replace("|", " ").split())


@pytest.mark.slow
def test_a_release_of_a_run_with_covariates_takes_them_everywhere(tmp_path):
    """The export compares every file with the model, on patients of whom something is known and of whom nothing is."""
    make_run(tmp_path / "run", covariates=["age", "sex"])
    assert main(["release-key", str(tmp_path / "keys"), "--no-passphrase"]) == 0
    release = tmp_path / "release"
    assert main(["export", str(tmp_path / "run"), "--out", str(release), "--key", str(tmp_path / "keys/release.key")]) == 0
    session = onnxruntime.InferenceSession(str(release / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["images", "present", "covariates"]
    x, present = (part.numpy() for part in patients())
    nan = np.nan
    asked = [np.array(rows, np.float32) for rows in ([[54, 0], [nan, 1], [80, nan]], [[nan, nan]] * 3)]
    told, untold = (session.run(None, {"images": x, "present": present, "covariates": c})[0] for c in asked)
    opened = open_saved(read_saved(tmp_path / "run"))
    arrays = {name: torch.from_numpy(array) for name, array in opened.arrays.items()}
    with torch.inference_mode():
        cosines = functional_call(
            opened.model, arrays, (torch.from_numpy(x), torch.from_numpy(present), None, None, torch.from_numpy(asked[0]))
        )
    scaled = cosines.logits[:, :3].double() / opened.config.objective.student_temperature / 1.7
    by_model = (scaled + torch.tensor(OFFSETS)).softmax(-1).numpy()
    np.testing.assert_allclose(told, by_model, atol=1e-4)
    np.testing.assert_allclose(untold, expected(tmp_path / "run", *patients()), atol=1e-4)
    assert np.abs(told - untold).max() > 1e-3
    metadata = json.loads((release / "bundle/configs/metadata.json").read_text())
    channels = metadata["network_data_format"]["inputs"]["covariates"]["channel_def"]
    assert channels["1"] == "sex, 0: F, 1: M; NaN where it is missing"
    card = (release / "MODEL_CARD.md").read_text()
    assert "Besides images the model takes age, a number in years from 0 to 120; sex, one of F, M; each may be missing." in card
