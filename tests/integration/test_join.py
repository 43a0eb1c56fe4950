"""From an invitation to an admitted hospital, and every way in which an invitation can be wrong. No process is started."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from client.cli.main import main as site_main
from client.deployment.home import open_home
from common.deployment.invitation import Backbone, fingerprint, read_invitation, write_invitation
from common.errors import ConfigError
from common.models.backbones.weights import SHIPPED_FILES, file_sha256
from server.cli.main import main as server_main
from server.deployment.bundle import build_bundle
from server.deployment.home import open_home as open_coordinator
from server.deployment.registry import admitted


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator's folder that has invited hospital-a."""
    home = tmp_path_factory.mktemp("coordinator") / "home"
    assert server_main(["init", str(home), "--address", "fedmri.example.org:8443"]) == 0
    assert server_main(["invite", str(home), "hospital-a", "--config", "demo"]) == 0
    return home


@pytest.fixture(scope="module")
def invitation(coordinator: Path) -> Path:
    return coordinator / "invitations" / "hospital-a.txt"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "patients"
    folder.mkdir()
    return folder


def join(invitation: Path, folder: Path, data: Path, *more: str) -> int:
    return site_main(["join", str(invitation), str(folder), "--data", str(data), *more])


def test_an_invitation_and_one_line_make_a_hospital(
    coordinator: Path, invitation: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert join(invitation, tmp_path / "site", data, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    home = open_home(tmp_path / "site")
    assert (home.name, home.address, Path(home.config.data)) == ("hospital-a", "fedmri.example.org:8443", data)
    assert home.ca.read_bytes() == (coordinator / "ca.crt").read_bytes()
    assert stat.S_IMODE(home.key.stat().st_mode) == 0o600
    assert told["bundle"] == build_bundle().sha256
    assert (told["backbone"]["sha256"], told["backbone"]["here"]) == (
        file_sha256(SHIPPED_FILES["phantom-tissue"]),
        True,
    )  # of the demo
    assert (Path(told["bundle_text"]) / "client" / "app.py").read_text() == Path("client/app.py").read_text()
    assert (home.folder / "release.pub").read_text().splitlines()[1] == (coordinator / "release.pub").read_text().splitlines()[1]
    assert server_main(["admit", str(coordinator), told["send_back"]]) == 0
    [site] = admitted(open_coordinator(coordinator))
    said = subprocess.run(["ssh-keygen", "-lf", home.public_key], capture_output=True, text=True, check=True).stdout
    assert (site.name, site.fingerprint) == ("hospital-a", told["key_fingerprint"])
    assert site.fingerprint in said
    assert not (home.folder / "bundles.txt").exists()  # what came is read, then approved: by a person
    assert site_main(["approve", str(home.folder), told["bundle"]]) == 0
    assert "0 differ, 0 are new" in capsys.readouterr().out


def test_an_invitation_names_the_weights_that_a_setting_names(coordinator: Path, tmp_path: Path, capfd) -> None:
    mine, out = tmp_path / "mine.safetensors", tmp_path / "hospital-b.txt"
    shutil.copy(SHIPPED_FILES["phantom-tissue"], mine)
    asked = ["invite", str(coordinator), "hospital-b", "--config", "real", "--out", str(out)]
    assert server_main(asked) == 1  # the configuration's own file is not here
    assert not out.exists()
    assert server_main([*asked, "--set", f"weights={mine}"]) == 0
    assert read_invitation(out)[0].backbone == Backbone("real", "file", file_sha256(mine))
    assert server_main([*asked, "--set", "wieghts=x"]) == 2
    assert "wieghts" in capfd.readouterr().err


def test_nothing_in_an_invitation_is_secret(coordinator: Path, invitation: Path) -> None:
    content = invitation.read_bytes()
    assert b"PRIVATE" not in content
    for name in ("ca.key", "release.key", "server.key", "superexec.secret"):
        secret = coordinator / name
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        lines = [line for line in secret.read_bytes().splitlines() if b"-----" not in line]
        assert lines[0] not in content  # of a key in PEM form the private number is in the first line


def test_the_fingerprint_on_the_telephone_is_held_against_the_file(
    invitation: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = read_invitation(invitation)[1]
    wrong = f"{right[:-1]}{'0' if right[-1] != '0' else '1'}"
    assert join(invitation, tmp_path / "site", data, "--fingerprint", wrong) == 2
    assert "the coordinator read out the fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    assert join(invitation, tmp_path / "site", data, "--fingerprint", right.upper().replace(" ", "")) == 0


@pytest.mark.parametrize("where", ["first", "second", "third", "middle", "last"])
def test_a_changed_byte_is_refused_by_the_files_name(
    invitation: Path, tmp_path: Path, data: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(invitation.read_bytes())
    ends, size = content.index(b"\n"), len(content)
    at = {"first": 3, "second": ends + 20, "third": ends + 200, "middle": size // 2, "last": size - 1}[where]
    content[at] ^= 1
    changed = tmp_path / "changed.txt"
    changed.write_bytes(content)
    assert join(changed, tmp_path / "site", data) == 2
    said = capsys.readouterr().err
    assert str(changed) in said.replace("\n", "")
    assert "Ask the coordinator for it anew" in said
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_refused(invitation: Path, tmp_path: Path, data: Path, share: float) -> None:
    content = invitation.read_bytes()
    cut = tmp_path / "cut.txt"
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigError, match="anew"):
        read_invitation(cut)
    assert join(cut, tmp_path / "site", data) == 2


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("address", "nowhere", "address: expected host:port"),
        ("site", "../elsewhere", "Site name"),
        ("ca", "no certificate", "The invitation's ca.crt: expected a certificate"),
        ("bundle", "AAAA", "as this version of FedMRI writes it"),
        ("backbone", "none", "as this version of FedMRI writes it"),
    ],
)
def test_a_whole_invitation_that_makes_no_sense_is_refused_before_anything_is_written(
    invitation: Path, tmp_path: Path, data: Path, field: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, body = invitation.read_bytes().split(b"\n", 2)
    body = json.dumps(json.loads(body) | {field: value}).encode()
    forged = tmp_path / "forged.txt"
    forged.write_bytes(head + f"\nfingerprint {fingerprint(body)}\n".encode() + body)
    assert join(forged, tmp_path / "site", data) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_what_is_written_is_read_again(invitation: Path, tmp_path: Path) -> None:
    found, told = read_invitation(invitation)
    (tmp_path / "copy.txt").write_bytes(write_invitation(found))
    assert read_invitation(tmp_path / "copy.txt") == (found, told)
    assert (tmp_path / "copy.txt").read_bytes() == invitation.read_bytes()


def test_nobody_names_themselves(coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "hospital-z", "-f", tmp_path / "z"], check=True
    )
    before = admitted(open_coordinator(coordinator))
    assert server_main(["admit", str(coordinator), (tmp_path / "z.pub").read_text()]) == 2
    assert "nobody was invited by it" in capsys.readouterr().err
    assert admitted(open_coordinator(coordinator)) == before


def test_a_site_toml_beside_the_patients_is_named(
    invitation: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "site.toml").write_text("[policy]\nshare_counts = true\n")
    assert join(invitation, tmp_path / "site", data) == 0
    assert f"Not read: {data / 'site.toml'}" in capsys.readouterr().out.replace("\n", "")
    assert not open_home(tmp_path / "site").config.policy.share_counts
