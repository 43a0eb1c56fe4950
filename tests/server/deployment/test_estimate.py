"""What a run at hospitals would take: closed forms of the scaling, and the command."""

import json
import subprocess
from pathlib import Path

import pytest

from common.config.run import config_from_table
from common.models.arrays import get_arrays
from common.models.build import build_model
from server.cli.main import main
from server.deployment.estimate import POLLS, Estimate, requests, scaled, told
from server.deployment.home import ServerSettings, open_home
from server.deployment.provision import init_home
from server.deployment.registry import admit
from server.deployment.trial import PROGRAM_MIB, Played
from simulation.phantom import write_hospitals

SAMPLE = Played(start=6.0, rounds=(8.0, 4.0, 2.0), predict=1.0, patients=4, labelled=2, memory=1 << 20)
TABLE = {
    "model": {"backbone": "fedmri_vit_mini", "weights": "random"},
    "data": {"size": 64},
    "training": {"head_rounds": 2},
    "federation": {"rounds": 5},
    "evaluation": {"every": 2, "modality_subsets": False, "holdout": 0.25},
}


def public_key(folder: Path, name: str) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(folder / name)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder / f"{name}.pub"


def estimated(assumed: tuple[str, ...] = ()) -> Estimate:
    return scaled(SAMPLE, config_from_table(TABLE), {"a": 8, "b": 40}, assumed, external=12)


def test_a_round_takes_what_it_takes_the_slowest_hospital() -> None:
    found, config = estimated(), config_from_table(TABLE)
    heads, tuned = 4.0 + 2.0, 3 * 0.5  # seconds a labelled patient in two head rounds, seconds a patient in three others
    assert found.rounds == pytest.approx(30 * (heads + tuned))  # a quarter of b is held back
    assert found.evaluation == pytest.approx(12 * 0.25 * (2 + 7))
    assert found.memory == (1 << 20) + PROGRAM_MIB * 2**20
    bytes_ = sum(array.nbytes + 128 for array in get_arrays(build_model(config)).values())
    fingerprints = 12 * 4 * 1024 * 8  # of the external patients
    assert (found.down, found.up, found.total) == (bytes_, bytes_, 2 * (2 * bytes_ * 5 + 2 * bytes_ + fingerprints))
    assert found.seconds == pytest.approx(found.rounds + found.requests + found.evaluation + 12.0)


@pytest.mark.parametrize(("sections", "count"), [({}, 8), ({"twins": {"with_external": "keep"}}, 7)])
def test_a_program_starts_at_a_hospital_for_each_request(sections: dict[str, object], count: int) -> None:
    """Five rounds, a comparison with the external patients, and calibration, which asks twice."""
    config = config_from_table(TABLE | sections)
    assert requests(config) == count
    assert scaled(SAMPLE, config, {"a": 1}, (), 1).requests == pytest.approx(count * (6.0 + POLLS))
    none_held = config_from_table(TABLE | sections | {"evaluation": {"holdout": 0.0}})
    assert requests(none_held) == count - 2


def test_a_number_that_is_a_guess_is_said_to_be_one() -> None:
    assert "No number of patients was agreed with a (`admit --patients`): taken to have 8 each" in told(estimated(("a",)))
    assert "agreed" not in told(estimated())


def test_the_command_asks_nobody_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_hospitals(tmp_path / "data", sites=2, patients=2, external=2, seed=2)
    home = init_home(tmp_path / "home", ServerSettings(address="localhost:8443", front="none"))
    asked = ["run", str(home.folder), "--config", "demo", "--external", str(tmp_path / "data" / "external"), "--dry-run"]
    settings = ["weights=random", "data.size=32", "data.slices=2", "head_rounds=3", "federation.rounds=4"]
    asked += ["--cache", str(tmp_path / "cache"), *(word for one in settings for word in ("--set", one))]
    assert main(asked) == 2
    assert "No hospital is admitted" in capsys.readouterr().err
    admit(open_home(home.folder), public_key(tmp_path, "a"), "hospital-a", patients=20)
    admit(open_home(home.folder), public_key(tmp_path, "b"), "hospital-b")
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["patients"], found["assumed"]) == ({"hospital-a": 20, "hospital-b": 2}, ["hospital-b"])
    assert found["seconds"] == pytest.approx(sum(found[part] for part in ("rounds", "requests", "evaluation", "start")))
    assert not home.runs.exists() or not list(home.runs.iterdir())
    assert main([*asked, "--set", 'personal.keep=["norms"]']) == 2
    assert "--dry-run plays plain rounds" in capsys.readouterr().err


def test_json_without_a_dry_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = init_home(tmp_path / "home", ServerSettings(address="localhost:8443", front="none"))
    assert main(["run", str(home.folder), "--config", "demo", "--external", str(tmp_path), "--json"]) == 2
    assert "--json goes with --dry-run" in capsys.readouterr().err
