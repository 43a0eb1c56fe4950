import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from common.config.run import RunConfig, load_config
from common.errors import ConfigError, DataError, FederationError, WeightsError
from common.models.arrays import load_arrays
from server.report.publish import write_report
from server.report.report import read_report
from server.report.results import complete
from simulation import baselines
from simulation.baselines import measure, plan_baselines, run_job
from simulation.cli import main
from simulation.cross_site import plan_folds, pool_folds, run_cross_site
from simulation.experiment import plan_experiment, read_all
from simulation.experiment_plan import Experiment
from simulation.phantom import write_hospitals

CONFIG = """
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
[objective]
local_crops = 1
[federation]
rounds = 2
[evaluation]
bootstrap = 20
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "hospitals"
    write_hospitals(folder, sites=3, patients=3, external=3, seed=2)
    return folder


@pytest.fixture
def data(hospitals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hospitals, tmp_path / "hospitals"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return tmp_path / "tiny.toml"


def plan(config: Path, data: Path, external: str = "external", settings: tuple[str, ...] = ()) -> Experiment:
    return plan_experiment(str(config), settings, data, external, config.parent / "run", config.parent / "cache")


def read(experiment: Experiment) -> tuple[tuple[str, ...], str]:
    notes: list[str] = []
    return read_all(experiment, notes.append, lambda *_: None), "\n".join(notes)


@pytest.mark.slow
def test_a_plan_names_training_and_external_sites(config: Path, data: Path) -> None:
    found = plan(config, data, "external+hospital-b")
    assert found.sites == ("hospital-a", "hospital-c")
    assert found.external == ("external", "hospital-b")


def test_wrong_use_is_refused_before_anything_runs(config: Path, data: Path, tmp_path: Path, real_weights: Path) -> None:
    with pytest.raises(ConfigError, match="hospital-z"):
        plan(config, data, "hospital-z")
    with pytest.raises(ConfigError, match="hospital-z"):  # which no weights would mend
        plan(config, data, "hospital-z", (f"weights={tmp_path / 'absent.pth'}",))
    with pytest.raises(ConfigError, match=r"Unknown key 'model\.rnk'"):
        plan(config, data, settings=("model.rnk=3",))
    with pytest.raises(WeightsError, match="no such file"):
        plan(config, data, settings=(f"weights={tmp_path / 'absent.pth'}",))
    with pytest.raises(WeightsError, match="does not fit fedmri_vit_mini"):
        plan(config, data, settings=(f"weights={real_weights}",))


def test_a_truncated_file_is_named_and_the_others_go_on(config: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    victim = sorted((data / "hospital-b").glob("sub-*/anat/*FLAIR.nii.gz"))[0]
    victim.write_bytes(victim.read_bytes()[:2000])
    refused, said = read(plan(config, data))
    assert refused == ()
    assert f"Site hospital-b: Patient {victim.parents[1].name}, {victim.relative_to(data / 'hospital-b')}: " in caplog.text
    assert "Site hospital-b: 2 of 3 patients are used" in caplog.text
    for file in (data / "hospital-b").glob("sub-*/anat/*.nii.gz"):
        file.write_bytes(b"torn")
    refused, said = read(plan(config, data))
    assert refused == ("hospital-b",)
    assert "goes on without hospital-b" in said


@pytest.mark.parametrize("trouble", ["label", "modality", "empty"])
def test_each_kind_of_bad_patient_and_an_empty_site_are_named(
    config: Path, data: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = data / "hospital-a"
    patient = sorted(site.glob("sub-*"))[1].name
    if trouble == "label":
        table = site / "participants.tsv"
        table.write_text("participant_id\tsubtype\n" + f"{patient}\tmeningioma\n")
        expected = [patient, "meningioma"]
    elif trouble == "modality":
        for file in (site / patient / "anat").glob("*"):
            if "mask" not in file.name:
                file.unlink()
        expected = [patient]
    else:
        for folder in site.glob("sub-*"):
            shutil.rmtree(folder)
        expected = ["hospital-a"]
    refused, said = read(plan(config, data))
    assert refused == (("hospital-a",) if trouble == "empty" else ())
    assert all(word in said + caplog.text for word in expected)


def unlabel(site: Path) -> None:
    table = site / "participants.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    table.write_text("\n".join("\t".join([*row[:3], "n/a" if i else row[3]]) for i, row in enumerate(rows)) + "\n")


def test_a_federation_without_one_label_is_refused_unless_asked_for(config: Path, data: Path) -> None:
    for name in ("hospital-a", "hospital-b"):  # c has none by itself
        unlabel(data / name)
    with pytest.raises(DataError, match=r"No patient of any training site has a label \(column subtype of.*--unlabelled"):
        read(plan(config, data))
    assert read(plan(config, data, settings=("federation.unlabelled=true",)))[0] == ()
    assert read(plan(config, data, settings=("objective.terms.classification.weight=0.0",)))[0] == ()  # as configs/pretrain.toml
    with pytest.raises(DataError, match="No patient of any training site has a label"):
        run_cross_site(
            *(
                str(config),
                (),
                data,
                ["external", "hospital-a+hospital-b+hospital-c"],
                data.parent / "folds",
                data.parent / "cache",
            ),
            *(print, lambda *_: None, lambda _: None),
        )
    unlabel(data / "external")
    said = read(plan(config, data, settings=("federation.unlabelled=true",)))[1]
    assert "No patient of the external hospital external has a label: nothing can be measured there." in said


def test_too_few_sites_or_a_bad_external_one_end_it(config: Path, data: Path) -> None:
    for name in ("hospital-a", "hospital-b"):
        for file in (data / name).glob("sub-*/anat/*.nii.gz"):
            file.write_bytes(b"torn")
    with pytest.raises(DataError, match=r"1 of 3 training sites.*federation.min_sites"):
        read(plan(config, data))
    with pytest.raises(DataError, match="hospital-a"):
        read(plan(config, data, "hospital-a"))


def test_baselines_are_federations_of_one_and_are_kept(config: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: RunConfig = load_config(config)
    sites = ("hospital-a", "hospital-b", "hospital-c")
    jobs = plan_baselines(data, sites, ("external",), settings, config.parent / "cache", config.parent / "models")
    assert [job.name for job in jobs] == ["pooled", "hospital-a", "hospital-b", "linear_probe"]  # c has no labels
    answers = {job.name: run_job(job) for job in jobs}
    assert all(values.shape == (3, 3) for values in answers.values())
    assert not np.array_equal(answers["hospital-a"], answers["hospital-b"])
    kept, _ = load_arrays(config.parent / "models" / "pooled.safetensors")
    assert "head.prototypes" in kept

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(baselines, "train_alone", never)
    assert np.array_equal(run_job(jobs[0]), answers["pooled"])
    labels = (data / "hospital-a" / "participants.tsv").read_text()
    (data / "hospital-a" / "participants.tsv").write_text(labels.replace("idh-mutant-astrocytoma", "idh-wildtype"))
    with pytest.raises(AssertionError, match="trained again"):  # other labels are other data
        run_job(jobs[1])


def test_measured_baselines_have_the_reports_shape() -> None:
    values = np.eye(3)[[0, 1, 2, 0]]
    wrong = np.eye(3)[[0, 0, 2, 0]]
    part = np.where(np.arange(4)[:, None] == 2, np.nan, values)  # was not asked about one patient
    said = {"pooled": values, "linear_probe": wrong, "a": values, "b": part}
    found = measure(said, [0, 1, 2, -1], values, RunConfig())
    assert set(found) == {"pooled", "linear_probe", "local"}
    assert found["local"]["a"]["mcc"]["value"] == 1.0
    assert (found["pooled"]["n"], found["local"]["b"]["n"]) == (3, 2)
    assert found["pooled"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["linear_probe"]["difference"]["value"] == 1.0 - found["linear_probe"]["mcc"]["value"] > 0


def test_folds_cover_every_site_once(data: Path) -> None:
    assert plan_folds(data, []) == ["external", "hospital-a", "hospital-b", "hospital-c"]
    assert plan_folds(data, ["hospital-b+external"]) == ["hospital-b+external", "hospital-a", "hospital-c"]
    for wrong in (["hospital-z"], ["external", "external"], ["external+hospital-a+hospital-b+hospital-c"]):
        with pytest.raises(ConfigError):
            plan_folds(data, wrong)


def test_pooling_measures_all_patients_at_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    classes, provenance = RunConfig().task.classes, {"config": json.loads(RunConfig().to_json()), "backbone": "b"}
    truth, guess, reports = [], [], []
    for fold, n in (("a", 12), ("b", 20)):
        labels, values = generator.integers(0, 3, n), generator.dirichlet((1, 1, 1), n)
        patients = [
            {
                "id": "sub-1" if i == 0 else f"sub-{fold}{i}",
                "label": classes[y],
                "probabilities": p.tolist(),
                "modalities": ["t1"],
                "picture": "patient-0000.png",  # the same name in every fold, each in that fold's own folder
            }
            for i, (y, p) in enumerate(zip(labels, values, strict=True))
        ]
        run = tmp_path / f"external-{fold}"
        audit = {
            "passed": False,
            "checks": [],
            "canary": {"claimed": 1.5, "audited": 2.0, "passed": False},
            "membership_auc": None,
        }
        write_report(
            run, complete({"patients": patients, "provenance": provenance, "privacy": {"x": {"epsilon": 3.0, "audit": audit}}})
        )
        if fold == "b":  # a hospital's own model, asked in one fold only
            (run / "baselines.json").write_text(json.dumps({"x": {p["id"]: p["probabilities"] for p in patients}}))
        reports.append((run, read_report(run)))
        truth += list(labels)
        guess += list(values.argmax(1))
    report = pool_folds(tmp_path, reports)
    assert report["external"]["mcc"]["value"] == pytest.approx(matthews_corrcoef(truth, guess))
    assert report["external"]["n"] == 32  # equal ids at two sites stay two patients
    local = report["baselines"]["local"]["x"]
    assert local["n"] == 20
    assert (
        local["difference"]["value"] == 0.0
    )  # of the patients whom it was asked about, where it says what the federated model says
    assert report["detectable"] is None or report["detectable"]["n"] == 32
    assert set(report["external"]["roc"]) == set(classes)
    assert not any("picture" in patient for patient in report["patients"])
    assert report["privacy"] == {}  # each fold is a run of its own: its claim and its audit stand in its own report
    assert (tmp_path / "report.html").is_file()


def test_a_kept_fold_whose_claim_was_refuted_says_so_again(config: Path, data: Path, tmp_path: Path) -> None:
    settings = ("baselines=false",)
    provenance = {"config": json.loads(load_config(config, settings).to_json())}
    audit = {"passed": False, "checks": [], "canary": {"claimed": 1.5, "audited": 2.0, "passed": False}, "membership_auc": None}
    patients = [{"id": "sub-1", "label": None, "probabilities": [0.2, 0.3, 0.5], "modalities": ["t1"]}]
    for fold, claims in (("external", {}), ("hospital-a", {"hospital-b": {"epsilon": 3.0, "audit": audit}})):
        write_report(tmp_path / f"external-{fold}", complete({"patients": patients, "provenance": provenance, "privacy": claims}))
    notes: list[str] = []
    run_cross_site(
        str(config),
        settings,
        data,
        ["external", "hospital-a"],
        tmp_path,
        tmp_path / "cache",
        notes.append,
        lambda *_: None,
        lambda _: None,
    )
    assert [note.split(" (")[0] for note in notes] == [
        "external as the external hospital: done before, kept.",
        "hospital-a as the external hospital: done before, kept.",
        "PRIVACY CLAIM REFUTED at hospital-b",
    ]


def test_a_fold_of_another_configuration_is_not_mixed_in(config: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    other = {"config": json.loads(RunConfig().to_json())}
    write_report(out / "external-external", complete({"provenance": other}))
    with pytest.raises(FederationError, match="another configuration"):
        run_cross_site(
            str(config), (), data, ["external", "hospital-a"], out, tmp_path / "cache", print, lambda *_: None, lambda _: None
        )


def test_commands_end_with_one_line_and_the_right_code(config: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--config", str(config), "--data", str(data), "--out", str(config.parent / "r")]
    assert main([*arguments, "--external", "hospital-z"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: External site 'hospital-z'")
    assert "Traceback" not in error
    with pytest.raises(ConfigError):
        main([*arguments, "--external", "hospital-z", "--debug"])
    with pytest.raises(SystemExit) as ended:
        main(["run"])
    assert ended.value.code == 2
    for verb in ("run", "cross-site", "phantom", "pretrain", "example"):
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0


def test_more_sites_than_there_are_is_refused_before_anything_is_read(config: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation.min_sites = 9 asks for more training sites than .*hospital-a, hospital-b"):
        plan(config, data, settings=("min_sites=9",))


def test_an_aggregator_with_too_few_labelled_sites_is_refused_before_training(config: Path, data: Path) -> None:
    unlabel(data / "hospital-a")
    planned = plan(config, data, settings=("strategy=median", "min_sites=3", "head_rounds=1"))
    with pytest.raises(DataError, match=r'"median" needs 3 sites with labelled patients in head rounds; they are 1 \(hospital-b'):
        read_all(planned, lambda sentence: None, lambda what, done, total: None)


def test_head_rounds_without_a_label_are_refused_though_it_is_asked_to_train_without(config: Path, data: Path) -> None:
    for name in ("hospital-a", "hospital-b"):
        unlabel(data / name)
    planned = plan(config, data, settings=("unlabelled=true", "head_rounds=1"))
    with pytest.raises(
        DataError, match=r"no patient of any training site has one: leave them out by `--set training.head_rounds=0`"
    ):
        read_all(planned, lambda sentence: None, lambda what, done, total: None)


def test_a_covariate_that_nobody_has_is_refused_before_training(config: Path, data: Path) -> None:
    planned = plan(config, data, settings=('data.covariates=[{name = "kps", scale = 20.0}]',))
    with pytest.raises(DataError, match="names kps, which is known of no patient at any training site"):
        read_all(planned, lambda sentence: None, lambda what, done, total: None)


def test_a_file_in_the_place_of_the_run_folder_is_refused(config: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data.parent / "taken").write_text("x")
    arguments = [
        "run",
        "--config",
        str(config),
        "--data",
        str(data),
        "--external",
        "external",
        "--out",
        str(data.parent / "taken"),
    ]
    assert main(arguments) == 1
    assert "it is a file. Name another." in " ".join(capsys.readouterr().err.split())
