"""A released model comes to a hospital by the gate, is kept only as it was signed, and is looked at again whenever it is used."""

import hashlib
import json
from pathlib import Path

import pytest

from client.cli.main import main
from client.gate.approvals import approve
from client.gate.audit_log import LOG_NAME
from client.gate.gate import Gate
from client.gate.kept_models import find_model, kept_models
from common.deployment.minisign import PUBLIC, make_key, read_key, sign
from common.errors import FedMRIError
from common.messages.released_model import CARD, MANIFEST, MAX_BYTES, SIGNATURE, Manifest, write_hand_out, write_manifest
from common.messages.round import Task, read_status
from tests.client.gate.test_gate import asked as asked_to_train
from tests.client.gate.test_gate import home, identity  # noqa: F401

CODE = b"no bundle runs for this"


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    """A folder with the key pair that signs releases."""
    make_key(tmp_path / "coordinator", "")
    return tmp_path / "coordinator"


@pytest.fixture
def site(home: Path, coordinator: Path) -> Path:  # noqa: F811
    """A hospital that knows the key."""
    (home / PUBLIC).write_bytes((coordinator / PUBLIC).read_bytes())
    with (home / "site.toml").open("a") as file:
        file.write('\n[connection]\nserver = "localhost:1"\n')
    return home


def signed(
    coordinator: Path, version: str = "1.0.0", released: str = "2026-11-29", model: bytes = b"some weights"
) -> dict[str, bytes]:
    """A released model, as the coordinator hands it out."""
    files = {"model.safetensors": model, CARD: b"# a card"}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    path = coordinator / MANIFEST
    path.write_bytes(write_manifest(Manifest("glioma", version, released, hashes)))
    sign(path, read_key(coordinator / "release.key", ""), "for a test")
    return files | {MANIFEST: path.read_bytes(), SIGNATURE: (coordinator / SIGNATURE).read_bytes()}


def offered(folder: Path, files: dict[str, bytes]) -> str:
    """What the gate answers; "": the model is kept."""
    message, context = asked_to_train()
    message.content = write_hand_out(Task(1, "", "code", "", run="r1"), files)
    approve(folder, hashlib.sha256(CODE).hexdigest())
    reply, _ = Gate(folder / "site.toml").answer(message, context, CODE)
    assert set(reply) == {"metrics", "site"}
    return read_status(reply).error


def last_rule(folder: Path) -> str:
    return str(json.loads((folder / "state" / LOG_NAME).read_text().splitlines()[-1]).get("rule"))


def test_a_model_is_kept_as_it_was_signed_and_twice_does_no_harm(site: Path, coordinator: Path) -> None:
    files = signed(coordinator)
    assert offered(site, files) == offered(site, files) == ""
    [one] = kept_models(site)
    assert (one.name, one.released, one.trouble) == ("glioma/1.0.0", "2026-11-29", "")
    assert {file.name: file.read_bytes() for file in find_model(site, "glioma/latest").iterdir()} == files


def test_latest_is_the_one_that_was_signed_last_not_the_one_that_came_last(site: Path, coordinator: Path) -> None:
    assert offered(site, signed(coordinator, "2.0", "2026-11-30")) == ""
    assert offered(site, signed(coordinator, "1.0", "2026-11-29")) == ""  # an old one, sent again
    assert find_model(site, "glioma/latest").name == "2.0"
    assert find_model(site, "glioma/1.0").name == "1.0"


@pytest.mark.parametrize("name", ["model.safetensors", CARD, MANIFEST, SIGNATURE])
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_model_that_is_not_as_it_was_signed_is_refused_and_said(site: Path, coordinator: Path, name: str, harm: str) -> None:
    files = signed(coordinator)
    if harm == "missing":
        del files[name]
    else:
        middle = len(files[name]) // 2
        files[name] = files[name][:middle] + bytes([files[name][middle] ^ 1]) + files[name][middle + 1 :]
    assert offered(site, files)
    assert last_rule(site) == ("federation" if harm == "missing" and name in (MANIFEST, SIGNATURE) else "signature")
    assert not (site / "models").exists()


def test_anothers_signature_is_refused(site: Path, coordinator: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "other", "")
    assert "not signed by the key" in offered(site, signed(tmp_path / "other"))
    (site / PUBLIC).unlink()
    assert "knows no key" in offered(site, signed(coordinator))
    assert not (site / "models").exists()


def test_another_model_of_the_same_name_does_not_take_its_place(site: Path, coordinator: Path) -> None:
    assert offered(site, signed(coordinator)) == ""
    other = signed(coordinator, model=b"other weights")
    assert "another model of this name" in offered(site, other)
    assert (find_model(site, "glioma/latest") / "model.safetensors").read_bytes() == b"some weights"


def test_more_bytes_than_were_agreed_are_refused(site: Path, coordinator: Path) -> None:
    assert offered(site, signed(coordinator, model=b"\0" * MAX_BYTES))
    assert last_rule(site) == "federation"


@pytest.mark.parametrize(
    ("policy", "rule"),
    [("keep_models = false", "policy.keep_models"), ('hours = "00:00-00:01"', "None"), ("max_hours = 0.01", "None")],
)
def test_the_policy_decides_and_hours_are_for_training(home: Path, coordinator: Path, policy: str, rule: str) -> None:  # noqa: F811
    (home / PUBLIC).write_bytes((coordinator / PUBLIC).read_bytes())
    (home / "site.toml").write_text(f"[policy]\n{policy}\n")
    assert bool(offered(home, signed(coordinator))) == (rule != "None")
    assert last_rule(home) == rule


def test_a_bundle_that_nobody_approved_brings_no_model(site: Path, coordinator: Path) -> None:
    message, context = asked_to_train()
    message.content = write_hand_out(Task(1, "", "code", "", run="r1"), signed(coordinator))
    reply, _ = Gate(site / "site.toml").answer(message, context, b"other code")
    assert "has not approved" in read_status(reply).error


def test_a_model_that_was_changed_here_is_listed_as_such_and_not_used(
    site: Path, coordinator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(site, signed(coordinator)) == ""
    assert main(["models", str(site)]) == 0
    assert "glioma/1.0.0" in capsys.readouterr().out
    (site / "models" / "glioma" / "1.0.0" / "model.safetensors").write_bytes(b"my own weights")
    assert main(["models", str(site), "--json"]) == 1
    [one] = json.loads(capsys.readouterr().out)
    assert "model.safetensors" in one["trouble"]
    with pytest.raises(FedMRIError, match="changed since it was signed"):
        find_model(site, "glioma/1.0.0")
    assert main(["predict", str(site), "--model", "glioma/latest"]) == 1
    assert "is not used" in capsys.readouterr().err
    assert main(["predict", str(site), "--model", "glioma/3.0"]) == 2
    assert "none of this name came" in capsys.readouterr().err
