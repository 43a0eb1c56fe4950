"""Frozen weights come to a hospital once, by the gate, and only those that were agreed; what is kept needs no cache."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client.cli.main import main
from client.gate.approvals import approve
from client.gate.audit_log import LOG_NAME
from client.gate.gate import Gate
from common.messages.round import Task, read_status
from common.messages.weights import LACKING, MAX_BYTES, write_offer
from common.models.backbones.kept_weights import keep_file, keep_shipped, kept_file, kept_weights
from common.models.backbones.weights import SHIPPED, SHIPPED_FILES, file_sha256
from tests.client.gate.test_gate import asked as asked_to_train
from tests.client.gate.test_gate import home, identity  # noqa: F401

CONTENT = save({"a": np.arange(6, dtype=np.float32)})
AGREED = hashlib.sha256(CONTENT).hexdigest()
CODE = b"no bundle runs for this"


def offered(folder: Path, content: bytes = b"", sha256: str = AGREED) -> str:
    """What the gate answers to an offer; "": the weights are there."""
    message, context = asked_to_train()
    message.content = write_offer(Task(3, "", "code", sha256, run="r1"), content)
    approve(folder, hashlib.sha256(CODE).hexdigest())
    reply, _ = Gate(folder / "site.toml").answer(message, context, CODE)
    assert set(reply) == {"metrics", "site"}
    return read_status(reply).error


def last(folder: Path) -> dict[str, object]:
    line: dict[str, object] = json.loads((folder / "state" / LOG_NAME).read_text().splitlines()[-1])
    return line


def test_a_site_that_lacks_them_says_so_takes_them_once_and_keeps_them(home) -> None:  # noqa: F811
    assert offered(home) == LACKING
    assert offered(home, CONTENT) == ""
    kept = kept_file(home / "weights", AGREED)
    assert kept is not None
    assert kept.read_bytes() == CONTENT
    assert (last(home)["event"], last(home)["weights"]) == ("answered", AGREED)
    assert offered(home) == ""


@pytest.mark.parametrize(
    ("content", "sha256", "rule"),
    [
        (CONTENT + b" ", AGREED, "weights"),
        (save({"b": np.zeros(2, np.float32)}), AGREED, "weights"),
        (b"\x80\x05pickled", hashlib.sha256(b"\x80\x05pickled").hexdigest(), "weights"),
        (b"\0" * (MAX_BYTES + 1), AGREED, "federation"),
        (CONTENT, "../../state/x", "weights"),
    ],
)
def test_other_bytes_than_agreed_are_refused_and_nothing_is_kept(home, content, sha256, rule) -> None:  # noqa: F811
    assert offered(home, content, sha256)
    assert (last(home)["event"], last(home)["rule"]) == ("refused", rule)
    assert {one.shipped for one in kept_weights(home / "weights")} in (set(), set(SHIPPED_FILES))


@pytest.mark.parametrize(
    ("policy", "rule"),
    [("take_weights = false", "policy.take_weights"), (f'backbone_sha256 = "{"f" * 64}"', "policy.backbone_sha256")],
)
def test_only_what_the_policy_lets_in_comes_in(home, policy, rule) -> None:  # noqa: F811
    (home / "site.toml").write_text(f"[policy]\n{policy}\n")
    assert offered(home, CONTENT)
    assert last(home)["rule"] == rule
    assert kept_file(home / "weights", AGREED) is None


def test_a_bundle_that_nobody_approved_brings_no_weights(home) -> None:  # noqa: F811
    message, context = asked_to_train()
    message.content = write_offer(Task(1, "", "code", AGREED, run="r1"), CONTENT)
    reply, _ = Gate(home / "site.toml").answer(message, context, b"other code")
    assert "has not approved" in read_status(reply).error
    assert not (home / "weights").exists()


def test_what_fedmri_ships_is_laid_beside_the_site_and_mended(tmp_path) -> None:
    keep_shipped(tmp_path)
    laid = {one.shipped: one for one in kept_weights(tmp_path)}
    assert {name: (one.sha256, one.sound) for name, one in laid.items()} == {
        name: (file_sha256(file), True) for name, file in SHIPPED_FILES.items()
    }
    laid["phantom"].path.write_bytes(b"cut")
    assert [one.sound for one in kept_weights(tmp_path)].count(False) == 1
    keep_shipped(tmp_path)
    assert laid["phantom"].path.read_bytes() == SHIPPED.read_bytes()


def test_a_file_is_added_by_command_and_listed_by_hash(tmp_path, capsys) -> None:
    folder, file = tmp_path / "site", tmp_path / "agreed.safetensors"
    folder.mkdir()
    (folder / "site.toml").write_text('[connection]\nserver = "localhost:1"\n')
    file.write_bytes(CONTENT)
    assert main(["weights", "add", str(folder), str(file)]) == 0
    file.unlink()
    capsys.readouterr()
    assert main(["weights", "list", str(folder), "--json"]) == 0
    assert {one["sha256"]: one["shipped"] for one in json.loads(capsys.readouterr().out)} == {
        AGREED: "",
        **{file_sha256(shipped): name for name, shipped in SHIPPED_FILES.items()},
    }
    file.write_bytes(b"\x80\x05no tensors")
    assert main(["weights", "add", str(folder), str(file)]) == 1
    assert "not readable as plain tensors" in " ".join(capsys.readouterr().err.split())
    assert len(list((folder / "weights").iterdir())) == 1 + len(SHIPPED_FILES)


def test_a_copy_that_is_there_is_the_one_that_is_taken(tmp_path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(CONTENT)
    keep_file(tmp_path / "weights", file)
    assert kept_file(tmp_path / "weights", AGREED) == tmp_path / "weights" / f"{AGREED}.safetensors"
    for wrong in ("", "../x", AGREED[:12], AGREED.upper()):
        assert kept_file(tmp_path / "weights", wrong) is None
