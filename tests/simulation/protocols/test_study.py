"""The command on phantoms as small as can be: features against the backbone by hand, who is learned from, and refusals."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.run import RunConfig, load_config
from common.errors import ConfigError
from common.models.build import build_model
from simulation.baselines import open_folders
from simulation.cli import main
from simulation.phantom import write_hospitals
from simulation.protocols import study
from simulation.protocols.inputs import Input, all_inputs, channels_of
from simulation.protocols.registry import CENTRAL, FEDERATED, Settings
from simulation.protocols.study import Asked, run_protocols
from simulation.protocols.tuned import Job, Tuned

CONFIG = """
[data]
size = 32
slices = 1
[model]
backbone = "fedmri_vit_mini"
weights = "random"
[evaluation]
bootstrap = 20
holdout = 0.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocols")
    write_hospitals(folder / "hospitals", sites=2, patients=4, external=3, seed=3)
    (folder / "tiny.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    return load_config(folder / "tiny.toml", ())


def command(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["--data", str(folder / "hospitals"), "--external", "external", "--config", str(folder / "tiny.toml")]
    return ["protocols", *given, "--out", str(out), "--cache", str(folder / "cache"), *more]


def here_and_now(work: Callable[[Job], Tuned], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Tuned]]:
    """In place of processes, which load all libraries anew; what they would be sent must be plain values."""
    del workers
    threads = torch.get_num_threads()
    yield from ((job, work(pickle.loads(pickle.dumps(job)))) for job in jobs)  # noqa: S301
    torch.set_num_threads(threads)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "as_they_end", here_and_now)
    asked = ("--shots", "1", "16", "--draws", "2", "--federated", "--set", "min_sites=1", "--epochs", "1", "--rates", "1e-3")
    some = ("--protocols", "knn", "probe", "few-shot", "bitfit")
    assert main(command(folder, tmp_path / "out", *asked, *some, "--json")) == 0
    table = json.loads(capsys.readouterr().out)
    assert {row["protocol"] for row in table["rows"]} == {
        *("kNN", "linear probe", "few-shot, 1 a class", "few-shot, 16 a class", "BitFit"),
        *("kNN, federated", "linear probe, federated", "few-shot, 1 a class, federated", "few-shot, 16 a class, federated"),
    }
    assert [one["name"] for one in table["inputs"]] == [
        *("multi-modality tokens", "early fusion: t1c, t2, flair"),
        *("t1 alone", "t1c alone", "t2 alone", "flair alone"),
    ]
    assert len(table["rows"]) == 49
    assert {row["protocol"] for row in table["rows"] if row["why"]} == {"few-shot, 16 a class", "few-shot, 16 a class, federated"}
    assert all(row["seconds"] >= 0 and row["peak_megabytes"] > 0 for row in table["rows"] if not row["why"])
    assert "external" not in table["training"]
    assert table["held_back"] == 0
    written = (tmp_path / "out" / "protocols.md").read_text()
    assert "What leaves a site" in written
    assert "Not answered" in written
    answers = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert len(answers) == 37
    assert (tmp_path / "out" / "protocols.svg").read_text().count("BitFit") == 1
    assert all(len(said) == 3 and np.allclose(np.sum(list(said.values()), axis=1), 1) for said in answers.values())
    assert main(command(folder, tmp_path / "out", "--set", "min_sites=1")) == 1  # the external hospital answers once
    assert "already holds a study" in " ".join(capsys.readouterr().err.split())


def test_what_was_trained_is_kept_when_a_study_is_cut_off(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command goes on; other rates begin anew; and the whole study keeps no second copy."""
    trained = list[str]()

    def cut_off(work: Callable[[Job], Tuned], jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Tuned]]:
        for job, found in here_and_now(work, jobs, workers):
            trained.append(job.name)
            yield job, found
            if len(trained) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(study, "as_they_end", cut_off)
    some = ("--set", "min_sites=1", "--epochs", "1", "--protocols", "head", "bitfit", "--json")
    asked = command(folder, tmp_path / "out", *some, "--rates", "1e-3")
    assert main(asked) != 0
    assert "To go on: the same command." in " ".join(capsys.readouterr().err.split())
    assert trained == ["bitfit"]
    assert main(asked) == 0
    assert trained == ["bitfit", "head"]
    rows = {row["protocol"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert not (tmp_path / "out" / "trained").exists()
    assert main(command(folder, tmp_path / "whole", *some, "--rates", "1e-3")) == 0
    again = {row["protocol"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert [row["measures"] for row in rows.values()] == [row["measures"] for row in again.values()]
    shutil.rmtree(tmp_path / "out")
    trained.clear()
    assert main(asked) != 0
    capsys.readouterr()
    assert main(command(folder, tmp_path / "out", *some, "--rates", "1e-4")) == 0
    assert "of other settings, patients or code" in " ".join(capsys.readouterr().err.split())
    assert trained == ["bitfit", "bitfit", "head"]


def test_a_setting_without_effect_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--set", "min_sites=1", "--protocols", "knn", "--set", "model.adapter=lora")
    assert main(command(folder, tmp_path / "out", *asked)) == 0
    assert "Without effect here: model.adapter=lora." in " ".join(capsys.readouterr().err.split())


def test_features_are_the_backbones(folder: Path, config: RunConfig) -> None:
    patients = open_folders([folder / "hospitals" / "external"], config, folder / "cache")
    images = np.array(patients.images)
    patients = replace(patients, present=patients.present.copy(), images=images)
    patients.present[0], images[0, :, 1:] = (True, False, False, False), 0
    patients.present[1] = True
    model = build_model(config).eval()
    tokens, fused, *alone = all_inputs(model, [patients], config, (1, 2, 3))
    assert tokens.sites[0].shape == (3, 5 * model.width)
    assert np.isfinite(tokens.sites[0]).all()
    assert np.isnan(fused.sites[0][0]).all()
    assert np.isnan(alone[1].sites[0][0]).all()
    x = torch.tensor(np.asarray(patients.images[1], np.float32))
    with torch.no_grad():
        whole = model(x[None], torch.ones(1, 4, dtype=torch.bool)).embedding[0]
        np.testing.assert_allclose(tokens.sites[0][1], whole, atol=1e-4)
        for found, channels in ((fused, [1, 2, 3]), (alone[2], [2, 2, 2])):
            seen = model.backbone.features((x[:, channels] - model.pixel_mean) / model.pixel_std)
            by_hand = torch.cat([seen[:, 0].mean(0), seen[:, model.backbone.prefixes :].mean((0, 1))])
            np.testing.assert_allclose(found.sites[0][1], by_hand, atol=1e-4)


def test_nothing_is_learned_from_external_patients(config: RunConfig) -> None:
    """Whatever the external hospital's labels, and the other patients there: every answer is the same."""
    generator = np.random.default_rng(0)
    labels = (np.arange(12) % 3, np.arange(9) % 3)
    settings = Settings(shots=(2,), draws=2)
    protocols = [one for make in (*CENTRAL.values(), *FEDERATED.values()) for one in make(settings)]

    def answers(external: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
        given = Input("made", (x[0], x[1], external), 0.0)
        return run_protocols(protocols, [given], Asked(labels, (1, 1), truth, config), lambda *_: None)[1]

    x = (generator.normal(size=(12, 5)), generator.normal(size=(9, 5)), generator.normal(size=(4, 5)))
    first = answers(x[2], np.array([0, 1, 2, 0]))
    other = np.concatenate([x[2][:1], 50 * generator.normal(size=(3, 5))])
    second = answers(other, np.array([2, -1, 1, 1]))
    assert len(first) == 6
    for name, said in first.items():
        np.testing.assert_allclose(said[0], second[name][0], atol=1e-12)


def test_channels() -> None:
    names = ("t1", "t1c", "t2", "flair")
    assert channels_of((), names) == (1, 2, 3)
    assert channels_of((), ("t1", "t2", "flair")) == (0, 1, 2)
    assert channels_of((), ("t1", "t2")) == ()
    assert channels_of(("flair", "t1", "t2"), names) == (3, 0, 2)
    for wrong in (("t1", "t2"), ("t1", "t1", "t2"), ("t1", "t2", "dwi")):
        with pytest.raises(ConfigError, match="--fusion"):
            channels_of(wrong, names)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--k", "0"), "--k"),
        (("--k", "0", "--protocols", "probe"), "--k"),
        (("--shots", "0", "--protocols", "head"), "--shots"),
        (("--temperature", "0"), "--temperature"),
        (("--shots", "0"), "--shots"),
        (("--draws", "0"), "--draws"),
        (("--epochs", "0"), "--epochs"),
        (("--rates", "0"), "--rates"),
        (("--protocols", "svm"), "--protocols"),
        (("--fusion", "t1", "t2"), "--fusion"),
        (("--set", "nonsense=1"), "nonsense"),
        (("--protocols", "head", "--federated"), "--federated"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    folder: Path, tmp_path: Path, more: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, tmp_path / "out", "--set", "min_sites=1", *more)) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_work_is_said_before_weights_are_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(folder), "--external", "hospital-b", "--out", str(tmp_path / "out"), "--config", "segmentation"]
    absent = ["--set", f"weights={tmp_path / 'absent.safetensors'}"]
    for verb, word in ((["protocols"], "A protocol"), (["run", "--dry-run"], "--dry-run")):
        assert main([*verb, *given, *absent]) == 2
        assert f"{word} knows runs that predict a class" in capsys.readouterr().err


def test_a_training_site_without_labels_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hospitals = tmp_path / "hospitals"
    shutil.copytree(folder / "hospitals", hospitals)
    for table in hospitals.glob("[!e]*/participants.tsv"):
        table.unlink()
    given = command(folder, tmp_path / "out", "--set", "min_sites=1")
    given[given.index("--data") + 1] = str(hospitals)
    assert main(given) == 1
    said = capsys.readouterr().err
    assert "has a label" in said
    assert "--unlabelled" not in said  # which this verb does not have


def test_whom_the_sites_hold_back_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--set", "min_sites=1", "--set", "holdout=0.25", "--protocols", "knn", "--json")
    assert main(command(folder, tmp_path / "out", *asked)) == 0
    table = json.loads(capsys.readouterr().out)
    labels = [line.split("\t")[-1] for site in table["training"] for line in _rows(folder / "hospitals" / site)]
    assert sum(table["training"].values()) + table["held_back"] == len(labels) - labels.count("n/a")
    assert table["held_back"] > 0
    said = (tmp_path / "out" / "protocols.md").read_text()
    assert f"{table['held_back']} labelled patients whom the run's sites hold back take no part." in said


def _rows(site: Path) -> list[str]:
    return (site / "participants.tsv").read_text().splitlines()[1:]


@pytest.mark.parametrize(("where", "said"), [("external", "nothing can be measured there"), ("[!e]*", "nothing to tell apart")])
def test_what_cannot_be_measured_is_refused_before_anything_is_computed(
    folder: Path, tmp_path: Path, where: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hospitals = tmp_path / "hospitals"
    shutil.copytree(folder / "hospitals", hospitals)
    for table in hospitals.glob(f"{where}/participants.tsv"):
        if where == "external":
            table.unlink()
        else:
            text = table.read_text()
            for name in ("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma"):
                text = text.replace(name, "idh-wildtype")
            table.write_text(text)
    given = command(folder, tmp_path / "out", "--set", "min_sites=1")
    given[given.index("--data") + 1] = str(hospitals)
    assert main(given) == 1
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
