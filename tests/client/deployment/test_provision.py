"""`fedmri-site init`: the folder, the key, and what is never overwritten."""

import json
import stat
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cli.main import main
from client.deployment.home import open_home
from client.deployment.keys import read_ca, read_key
from client.deployment.provision import CONNECTION, POLICY, PRIVACY, provision, settings_text
from common.config.site import SiteConnection, SitePolicy, SitePrivacy, read_site_config
from common.deployment.ssh_fingerprint import ssh_fingerprint
from common.errors import ConfigError
from tests.client.deployment.tls import Authority

SERVER = "fedmri.example.org:8443"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_site_has_the_strict_policy_and_a_key_for_this_user_only(tmp_path: Path, authority: Authority) -> None:
    data = tmp_path / "the patients"
    data.mkdir()
    made = provision(tmp_path / "bonn", SERVER, authority.file, data=data)
    config = read_site_config(tmp_path / "bonn" / "site.toml")
    assert config.policy == SitePolicy()
    assert config.privacy == SitePrivacy()
    assert config.connection == SiteConnection(SERVER)
    assert Path(config.data) == data
    assert made.home.name == "bonn"
    assert (mode(made.home.key), mode(made.home.key.parent), mode(made.home.state)) == (0o600, 0o700, 0o700)
    assert made.home.ca.read_bytes() == authority.file.read_bytes()
    assert made.home.public_key.read_text() == made.public_line + "\n"


def test_the_key_is_what_ssh_and_openssl_say(tmp_path: Path, authority: Authority) -> None:
    made = provision(tmp_path / "bonn", SERVER, authority.file)
    said = subprocess.run(["ssh-keygen", "-l", "-f", made.home.key], capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == ["384", made.key_fingerprint]
    command = ["openssl", "x509", "-in", str(made.home.ca), "-noout", "-fingerprint", "-sha256"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().endswith(made.ca_fingerprint)
    assert ssh_fingerprint(read_key(made.home.key)) == made.key_fingerprint


@pytest.mark.parametrize(("kind", "explained"), [(SitePolicy, POLICY), (SitePrivacy, PRIVACY), (SiteConnection, CONNECTION)])
def test_every_key_is_written_and_explained(kind: type, explained: dict[str, str]) -> None:
    section = {SitePolicy: "policy", SitePrivacy: "privacy", SiteConnection: "connection"}[kind]
    names = [f.name for f in fields(kind)]
    assert set(names) == set(explained)
    assert set(tomllib.loads(settings_text(SERVER, "", ""))[section]) == set(names)


@pytest.mark.parametrize("kind", [SitePolicy, SitePrivacy])
def test_the_hospitals_page_tells_every_key_with_its_default(kind: type) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "hospital.md").read_text()
    told = {row[1].strip(" `"): row[3] for line in page.splitlines() if len(row := line.split("|")) == 5}
    for name, value in vars(kind()).items():
        assert tomllib.loads(f"x = {told[name].split(':')[0].strip(' `')}")["x"] == (
            list(value) if isinstance(value, tuple) else value
        )


def test_json(tmp_path: Path, authority: Authority, capsys) -> None:
    words = ["init", str(tmp_path / "x"), "--server", SERVER, "--ca", str(authority.file), "--name", "Bonn [red]", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["site"] == "Bonn [red]"
    assert told["settings_done"] == "made"
    assert told["public_key"].startswith("ecdsa-sha2-nistp384 ")
    assert told["fingerprint"].startswith("SHA256:")


def test_what_is_said_names_file_and_fingerprints(tmp_path: Path, authority: Authority, capsys) -> None:
    assert main(["init", str(tmp_path / "bonn"), "--server", SERVER, "--ca", str(authority.file)]) == 0
    out = capsys.readouterr().out
    home = open_home(tmp_path / "bonn")
    assert str(home.public_key) in out
    assert ssh_fingerprint(read_key(home.key)) in out
    assert "PRIVATE" not in out


def test_a_site_toml_that_is_there_is_only_added_to(tmp_path: Path, authority: Authority) -> None:
    toml = tmp_path / "site.toml"
    before = 'name = "Bonn"  # ours\n[policy]\nshare_counts = true'
    toml.write_text(before)
    made = provision(tmp_path, SERVER, authority.file)
    assert made.toml_done == "connection added"
    assert toml.read_text().startswith(before + "\n")
    config = read_site_config(toml)
    assert config.connection.server == SERVER
    assert config.policy.share_counts
    assert config.name == "Bonn"


def test_a_site_toml_with_a_connection_is_left_alone(tmp_path: Path, authority: Authority) -> None:
    toml = tmp_path / "site.toml"
    toml.write_text(f'[connection]\nserver = "{SERVER}"\nkey = "mine/own"\n')
    before = toml.read_bytes()
    made = provision(tmp_path, SERVER, authority.file)
    assert toml.read_bytes() == before
    assert made.home.key == tmp_path / "mine" / "own"
    read_key(made.home.key)


@pytest.mark.parametrize(
    ("there", "name", "words"),
    [
        ('[connection]\nserver = "other.example.org:1"\n', "", "another server"),
        ("[policy]\nshare_count = true\n", "", "share_count"),
        ('name = "Bonn"\n', "Koeln", "set name and data in it"),
    ],
)
def test_a_site_toml_that_does_not_fit_is_refused(
    tmp_path: Path, authority: Authority, there: str, name: str, words: str
) -> None:
    (tmp_path / "site.toml").write_text(there)
    with pytest.raises(ConfigError, match=words):
        provision(tmp_path, SERVER, authority.file, name=name)
    assert (tmp_path / "site.toml").read_text() == there
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("file", ["site", "site.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, authority: Authority, file: str, capsys) -> None:
    there = tmp_path / "bonn" / "keys" / file
    there.parent.mkdir(parents=True)
    there.write_text("precious")
    assert main(["init", str(tmp_path / "bonn"), "--server", SERVER, "--ca", str(authority.file)]) == 2
    assert there.read_text() == "precious"
    assert [path.name for path in there.parent.iterdir()] == [file]
    assert [path.name for path in (tmp_path / "bonn").iterdir()] == ["keys"]
    assert "never overwritten" in capsys.readouterr().err


def test_another_authority_is_not_put_over_the_first(tmp_path: Path, authority: Authority) -> None:
    home = provision(tmp_path / "bonn", SERVER, authority.file).home
    before = home.ca.read_bytes()
    home.key.unlink()
    home.public_key.unlink()
    with pytest.raises(ConfigError, match="another certificate"):
        provision(home.folder, SERVER, Authority.make(tmp_path, "other").file)
    assert home.ca.read_bytes() == before
    provision(home.folder, SERVER, authority.file)  # the first one again: goes on where it was cut off


def test_only_an_authority_is_taken(tmp_path: Path, authority: Authority) -> None:
    pem, key = authority.issue(tmp_path)
    both = tmp_path / "both"
    both.write_bytes(authority.file.read_bytes() * 2)
    secret = tmp_path / "secret"
    secret.write_bytes(authority.file.read_bytes() + key.read_bytes())
    for file, words in (
        (pem, "no authority"),
        (both, "expected one"),
        (secret, "private key"),
        (tmp_path / "gone", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_ca(file)
        with pytest.raises(ConfigError, match=words):
            provision(tmp_path / "bonn", SERVER, file)
    assert not (tmp_path / "bonn").exists()


@pytest.mark.parametrize("server", ["example.org", "https://example.org:1", "example.org:0", "a b:1", ""])
def test_a_server_is_host_and_port(tmp_path: Path, authority: Authority, server: str) -> None:
    with pytest.raises(ConfigError, match="--server"):
        provision(tmp_path / "bonn", server, authority.file)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, authority: Authority) -> None:
    key = provision(tmp_path / "bonn", SERVER, authority.file).home.key
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(key)


@pytest.mark.parametrize("words", [["-t", "ed25519"], ["-t", "ecdsa", "-b", "256"], ["-t", "ecdsa", "-b", "384", "-N", "secret"]])
def test_another_kind_of_key_is_refused(tmp_path: Path, words: list[str]) -> None:
    rest = [] if "-N" in words else ["-N", ""]
    subprocess.run(["ssh-keygen", "-q", "-f", tmp_path / "key", *words, *rest], check=True)
    with pytest.raises(ConfigError, match="expected"):
        read_key(tmp_path / "key")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_data_folder_and_name_come_back(data: str, name: str) -> None:
    table = tomllib.loads(settings_text(SERVER, name, data))
    assert (table["data"], table["name"]) == (data, name)


def test_a_link_to_the_patients_stays_a_link(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "disk-1").mkdir()
    (tmp_path / "patients").symlink_to("disk-1")
    provision(tmp_path / "bonn", SERVER, authority.file, data=tmp_path / "patients")
    assert Path(read_site_config(tmp_path / "bonn" / "site.toml").data) == tmp_path / "patients"
    (tmp_path / "disk-1" / "deep").mkdir()
    (tmp_path / "deep").symlink_to(tmp_path / "disk-1" / "deep")
    provision(tmp_path / "koeln", SERVER, authority.file, data=tmp_path / "deep" / "..")  # the link's own parent
    assert Path(read_site_config(tmp_path / "koeln" / "site.toml").data) == tmp_path / "disk-1"
