"""The real thing: phantoms and two rounds, through `flwr run` and Ray or through the pool; and what it does when sites break."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from client.round.train import site_seed
from common.config.run import load_config
from common.data.cache import open_site
from common.data.cases import read_site
from common.errors import DataError, FederationError
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from common.privacy.accounting import epsilon_of
from common.privacy.charge import Charge
from common.training.local import train_round
from simulation import engines
from simulation.engines import ENGINES
from simulation.flower import run_federation
from simulation.marked_processes import MARK
from simulation.phantom.hospitals import write_hospitals

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = """
seed = 3
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
rank = 2
head_hidden = 16
head_bottleneck = 8
[objective]
local_crops = 1
[training]
batch_size = 4
[federation]
rounds = 2
round_retries = 0
[evaluation]
bootstrap = 20
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals") / "data"
    write_hospitals(folder, sites=3, patients=3, external=3, seed=1)
    return folder


@pytest.fixture
def settings(tmp_path, hospitals, tmp_path_factory) -> dict[str, str]:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    cache = tmp_path_factory.getbasetemp() / "cache"
    return {"config": str(config), "data": str(hospitals), "external": "external", "cache": str(cache)}


def ours() -> set[int]:
    """Processes of any run that this test process, or a child of it, has started and that still live."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(v.split(b"=", 1) for v in (folder / "environ").read_bytes().split(b"\0") if b"=" in v)
        except OSError:
            continue
        if MARK.encode() in variables and variables.get(b"FEDMRI_TEST") == str(os.getpid()).encode():
            found.add(int(folder.name))
    return found


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    monkeypatch.setenv("FEDMRI_TEST", str(os.getpid()))
    yield
    assert ours() == set()


def broken(folder: Path, site: str) -> None:
    """Cut all of the site's volumes short: of a patient with one such volume the patient alone stays out."""
    for file in (folder / site).rglob("*.nii.gz"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_both_engines_give_one_model_and_a_whole_folder(settings, tmp_path):
    told: list[dict] = []
    for engine in ENGINES:
        engines.run_federation(engine, CHECKOUT, settings, 3, tmp_path / engine, on_round=told.append)
    out = tmp_path / "ray"
    report = json.loads((out / "report.json").read_text())
    assert [r["round"] for r in report["rounds"]] == [1, 2]
    assert all(r["sites"] == ["hospital-a", "hospital-b", "hospital-c"] and not r["failures"] for r in report["rounds"])
    assert report["external"]["n"] == 3
    assert [r["round"] for r in told] == [1, 2, 1, 2]
    for name in ("model.safetensors", *(f"checkpoints/round-000{number}.safetensors" for number in (1, 2))):
        assert (out / name).read_bytes() == (tmp_path / "pool" / name).read_bytes()
    arrays, metadata = load_arrays(out / "model.safetensors")
    assert arrays
    assert json.loads(metadata["config"])["seed"] == 3
    assert not (out / "report.html").exists()
    assert list(out.glob("events.out.tfevents.*"))
    log = (out / "logs" / "run.log").read_text()
    assert "Round 2: aggregated, 3 sites" in log
    assert f"Their page: fedmri-server report {out}" in log


def test_a_site_without_a_readable_patient_is_left_out_alone(settings, hospitals, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(hospitals, data)
    broken(data, "hospital-b")
    engines.run_federation("pool", CHECKOUT, settings | {"data": str(data)}, 3, tmp_path / "run")
    for entry in json.loads((tmp_path / "run" / "report.json").read_text())["rounds"]:
        assert entry["sites"] == ["hospital-a", "hospital-c"]
        assert entry["failures"] == [{"site": "hospital-b", "reason": DataError.public_default, "rule": "site"}]


def test_a_private_run_ends_by_itself_when_the_hospitals_budgets_are_spent(settings, hospitals, tmp_path):
    data, config = tmp_path / "data", tmp_path / "private.toml"
    shutil.copytree(hospitals, data)
    for site in ("hospital-a", "hospital-b"):
        (data / site / "site.toml").write_text("[privacy]\nepsilon = 4.0\n")  # one round costs 3.2, two cost more than 4
    bounded = CONFIG.replace("local_crops = 1", "local_crops = 0\ndino = 0.0\nibot = 0.0\nkoleo = 0.0")
    private = "[privacy]\nenabled = true\nnoise_multiplier = 1.0\nsample_rate = 0.5\nsteps = 2\n"
    config.write_text(bounded.replace("rounds = 2", "rounds = 4") + private)
    engines.run_federation("pool", CHECKOUT, settings | {"data": str(data), "config": str(config)}, 3, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [entry["round"] for entry in report["rounds"]] == [1]
    steps = {site: claim["steps"] for site, claim in report["privacy"].items()}
    # The third had budget left, and spent it on the second round that then came to nothing.
    assert steps == {"hospital-a": 2, "hospital-b": 2, "hospital-c": 4}
    third = report["privacy"]["hospital-c"]
    assert third["epsilon"] == pytest.approx(third["ledger_epsilon"])
    claim = report["privacy"]["hospital-a"]
    assert claim["epsilon"] == pytest.approx(claim["ledger_epsilon"])
    assert claim["epsilon"] == pytest.approx(epsilon_of([Charge(1.0, 0.5, 2)], 1e-3))


def test_a_secure_run_gives_the_mean_of_what_the_sites_train(settings, hospitals, tmp_path):
    Path(settings["config"]).write_text(CONFIG.replace("rounds = 2", "rounds = 1") + "[secure]\nenabled = true\n")
    engines.run_federation("pool", CHECKOUT, settings, 3, tmp_path / "run")
    [entry] = json.loads((tmp_path / "run" / "report.json").read_text())["rounds"]
    assert (entry["sites"], entry["failures"], entry["train"]) == (["hospital-a", "hospital-b", "hospital-c"], [], {})
    config = load_config(Path(settings["config"]))
    model, updates = build_model(config), []
    start = get_arrays(model)
    for site in entry["sites"]:
        patients = open_site(read_site(hospitals / site, config, simulated=True), config.data, Path(settings["cache"]))
        seed = site_seed(config.seed, site, 1)
        updates.append(train_round(model, start, patients, config, round_number=1, site_seed=seed))
    weights = [u.patients for u in updates]  # unlabelled patients weigh as much here
    mean = {name: np.average([u.arrays[name] for u in updates], axis=0, weights=weights) for name in start}
    for name, array in load_arrays(tmp_path / "run" / "model.safetensors")[0].items():
        np.testing.assert_allclose(array, mean[name], rtol=1e-4, atol=1e-6)


def test_when_all_sites_fail_the_run_fails_and_says_why(settings, hospitals, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(hospitals, data)
    for site in ("hospital-a", "hospital-b", "hospital-c"):
        broken(data, site)
    with pytest.raises(FederationError, match=r"Round 1 ended with 0 valid updates of the 2") as caught:
        engines.run_federation("pool", CHECKOUT, settings | {"data": str(data)}, 3, tmp_path / "run")
    assert f"hospital-a: {DataError.public_default}" in str(caught.value)
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_server_error_comes_back_in_its_own_words(settings, tmp_path):
    with pytest.raises(FederationError, match="External site 'nowhere' is not among the site folders"):
        run_federation(CHECKOUT, settings | {"external": "nowhere"}, 3, tmp_path / "run")


def test_sigterm_in_the_middle_leaves_nothing_running(settings, tmp_path):
    script = (
        "import json, sys\nfrom pathlib import Path\nfrom simulation.flower import run_federation\n"
        "run_federation(Path(sys.argv[1]), json.loads(sys.argv[2]), 3, Path(sys.argv[3]))\n"
    )
    arguments = [sys.executable, "-c", script, str(CHECKOUT), json.dumps(settings), str(tmp_path / "run")]
    child = subprocess.Popen(arguments)
    try:
        deadline = time.monotonic() + 120
        while "Starting Flower Simulation" not in read(tmp_path / "run" / "logs" / "run.log"):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.2)
        assert ours()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143
    finally:
        child.kill()
        child.wait()


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
