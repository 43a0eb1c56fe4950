"""Hospitals' gates and the coordinator in this process: who is given a run's model, and who is not."""

import json
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict

from client.gate.kept_models import find_model, keep_model
from common.config.run import RunConfig
from common.deployment.minisign import PUBLIC, make_key, read_key
from common.errors import ConfigError, FederationError, FedMRIError
from common.messages.released_model import CARD, read_hand_out
from common.messages.round import SiteReply, write_status
from server.release.hand_out import pack, packed_name
from server.run.hand_out import NAME, hand_out
from tests.server.made_up_sites import plan

OLD_RUN = Path(__file__).parents[2] / "fixtures" / "2a60dec" / "run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of hospitals a, b and c."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in OLD_RUN.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line | {"sites": ["a", "b", "c"]}) + "\n" for line in lines))
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key", "")
    return tmp_path / "key"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return plan(tmp_path, tmp_path / "out").config


@pytest.fixture
def given(tmp_path: Path, local_grid, key: Path, config: RunConfig, monkeypatch):
    """given(folder, names): hand-out.json after a hand-out where hospitals of these names are connected."""

    def node(home: Path):
        home.mkdir(exist_ok=True)
        (home / PUBLIC).write_bytes((key / PUBLIC).read_bytes())

        def answer(message: Message) -> RecordDict:
            try:
                keep_model(home, read_hand_out(message.content))
            except FedMRIError as error:
                return write_status(SiteReply(home.name, 1, error=error.public))
            return write_status(SiteReply(home.name, 1))

        return answer

    def give(folder: Path, *names: str):
        grid = local_grid({number: node(tmp_path / name) for number, name in enumerate(names, start=1)})
        nodes = [type("Node", (), {"name": name, "node_id": number}) for number, name in enumerate(names, start=1)]
        monkeypatch.setattr(type(grid), "get_nodes", lambda _: nodes, raising=False)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        assert hand_out(grid, config, folder, out) == json.loads((out / NAME).read_text())
        return json.loads((out / NAME).read_text())

    return give


def test_who_took_part_gets_the_model_and_nobody_else(run: Path, key: Path, given, tmp_path: Path) -> None:
    folder = pack(run, "glioma", "1.0.0", read_key(key / "release.key", ""))
    found = given(folder, "a", "b", "stranger")
    assert found == {"model": "glioma/1.0.0", "kept": ["a", "b"], "failures": {"c": "not connected"}}
    assert not (tmp_path / "stranger" / "models").exists()
    for name in "ab":
        kept = find_model(tmp_path / name, "glioma/latest")
        for file in ("model.safetensors", "calibration.safetensors"):
            assert (kept / file).read_bytes() == (run / file).read_bytes()
        assert (kept / CARD).read_text().startswith("# Model card")
        assert {"sites.json"}.isdisjoint(file.name for file in kept.iterdir())  # who else took part is nobody's business
    assert given(folder, "c")["kept"] == ["c"]  # who was away gets it later


def test_what_is_packed_once_is_handed_out_again_as_it_is(run: Path, key: Path) -> None:
    private = read_key(key / "release.key", "")
    first = {file.name: file.read_bytes() for file in pack(run, "glioma", "1.0.0", private).iterdir()}
    assert {file.name: file.read_bytes() for file in pack(run, "glioma", "1.0.0", private).iterdir()} == first
    assert packed_name(pack(run, None, "1.0.0", private)) == "glioma/1.0.0"  # nobody named it anew
    with pytest.raises(ConfigError, match=r"is glioma/1\.0\.0 already"):
        pack(run, "meningioma", "1.0.0", private)
    assert packed_name(pack(run, None, "1.0.1", private)) == f"{run.name}/1.0.1"


def test_a_model_that_was_changed_at_the_coordinator_goes_to_nobody(run: Path, key: Path, given) -> None:
    folder = pack(run, "glioma", "1.0.0", read_key(key / "release.key", ""))
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(FederationError, match="changed since it was signed"):
        given(folder, "a")


def test_a_key_that_no_hospital_knows_is_said(run: Path, given, tmp_path: Path) -> None:
    make_key(tmp_path / "other", "")
    folder = pack(run, "glioma", "1.0.0", read_key(tmp_path / "other" / "release.key", ""))
    with pytest.raises(FederationError, match=r"No hospital keeps the model. a: the released model is not signed by the key"):
        given(folder, "a")


@pytest.mark.parametrize("name", ["", "latest", "../x", "a/b", "x" * 65])
def test_a_name_that_cannot_be_a_folder_is_refused(run: Path, key: Path, name: str) -> None:
    with pytest.raises((ConfigError, FederationError), match="expected 1 to 64 letters"):
        pack(run, name, "1.0.0", read_key(key / "release.key", ""))
