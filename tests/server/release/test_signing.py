"""Signatures against minisign itself, and every way in which a release can be wrong."""

import shutil
import stat
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.deployment.minisign import KEY, PUBLIC, SUFFIX, is_locked, make_key, read_key, read_public, sign, verify
from common.errors import ConfigError, FedMRIError
from server.cli.main import main
from server.release.manifest import MANIFEST, verify_release, write_manifest

MINISIGN = shutil.which("minisign")
needs_minisign = pytest.mark.skipif(MINISIGN is None, reason="the tool minisign is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with an open key pair."""
    folder = tmp_path_factory.mktemp("keys")
    make_key(folder, "")
    return folder


@pytest.fixture
def release(tmp_path, keys):
    """A signed release of three files."""
    folder = tmp_path / "release"
    (folder / "bundle" / "configs").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "bundle" / "configs" / "inference.json").write_text("{}")
    (folder / "MODEL_CARD.md").write_text("# Card")
    write_manifest(folder, read_key(keys / KEY, ""), "fedmri release 1.0.0")
    return folder


def test_a_release_verifies_as_it_was_signed(release, keys, capsys):
    assert verify_release(release, read_public(keys / PUBLIC)) == (3, "fedmri release 1.0.0")
    assert main(["verify", str(release), "--key", str(keys / PUBLIC)]) == 0
    assert "Verified: 3 files" in capsys.readouterr().out


def flip(path, place=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda r: flip(r / "model.safetensors", 200), "model.safetensors: changed"),
        (lambda r: flip(r / "bundle/configs/inference.json"), "bundle/configs/inference.json: changed"),
        (lambda r: (r / "MODEL_CARD.md").unlink(), "MODEL_CARD.md: missing"),
        (lambda r: (r / "bundle/more.py").write_text("evil"), "bundle/more.py: not in the manifest"),
        (lambda r: (r / ".hidden").write_text("evil"), ".hidden: not in the manifest"),
        (lambda r: (r / "link").symlink_to("/etc/hostname"), "link: expected a plain file"),
        (lambda r: flip(r / MANIFEST, 20), f"{MANIFEST}: the signature does not fit"),
        (lambda r: (r / MANIFEST).unlink(), f"no {MANIFEST}"),
        (lambda r: (r / (MANIFEST + SUFFIX)).unlink(), f"{MANIFEST}{SUFFIX}: the signature cannot be read"),
    ],
)
def test_what_was_changed_is_named(release, keys, capsys, damage, named):
    damage(release)
    assert main(["verify", str(release), "--key", str(keys / PUBLIC)]) != 0
    assert named in capsys.readouterr().err


def test_another_key_is_refused(release, tmp_path, capsys):
    make_key(tmp_path / "other", "")
    assert main(["verify", str(release), "--key", str(tmp_path / "other" / PUBLIC)]) == 1
    assert "signed by another key" in capsys.readouterr().err


def test_another_key_with_the_same_number_is_refused(release, keys, tmp_path):
    theirs, ours = make_key(tmp_path / "other", ""), read_public(keys / PUBLIC)
    with pytest.raises(FedMRIError, match="does not fit"):
        verify_release(release, type(theirs)(theirs.key, ours.number))


def test_the_trusted_comment_is_signed(release, keys):
    place = release / (MANIFEST + SUFFIX)
    place.write_text(place.read_text().replace("1.0.0", "2.0.0"))
    with pytest.raises(FedMRIError, match="does not fit"):
        verify_release(release, read_public(keys / PUBLIC))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_signature_passes(keys, tmp_path, data):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    sign(file, read_key(keys / KEY, ""), "comment")
    place = tmp_path / ("file" + SUFFIX)
    content = bytearray(place.read_bytes())
    first = content.index(b"\n") + 1  # the untrusted comment is anybody's
    where = data.draw(st.integers(first, len(content) - 2))
    content[where] ^= data.draw(st.integers(1, 255))
    place.write_bytes(content)
    with pytest.raises(FedMRIError):
        verify(file, b"content", read_public(keys / PUBLIC))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_for_a_public_key_are_refused_in_words(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(FedMRIError):
        read_public(tmp_path / "key")


def test_a_key_is_for_its_owner_alone_and_never_overwritten(tmp_path, capsys):
    assert main(["release-key", str(tmp_path), "--no-passphrase"]) == 0
    path = tmp_path / KEY
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["release-key", str(tmp_path), "--no-passphrase"]) == 2
    assert path.read_bytes() == before
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(path, "")
    assert "PRIVATE" not in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["release-key", str(folder), "--no-passphrase"]) == 2
        assert "file: cannot be made" in capsys.readouterr().err.replace("/below", "")


def test_a_passphrase_locks_the_key(tmp_path):
    (tmp_path / "phrase").write_text("correct horse\n")
    assert main(["release-key", str(tmp_path), "--passphrase-file", str(tmp_path / "phrase")]) == 0
    assert is_locked(tmp_path / KEY)
    for wrong in ("", "correct"):
        with pytest.raises(ConfigError, match="passphrase is wrong or missing"):
            read_key(tmp_path / KEY, wrong)
    read_key(tmp_path / KEY, "correct horse")


def test_an_empty_passphrase_is_no_passphrase(tmp_path, capsys):
    (tmp_path / "phrase").write_text("\n")
    assert main(["release-key", str(tmp_path / "keys"), "--passphrase-file", str(tmp_path / "phrase")]) == 2
    assert "passphrase is empty" in capsys.readouterr().err
    assert not (tmp_path / "keys").exists()


@needs_minisign
def test_minisign_verifies_what_we_signed_and_sees_a_change(release, keys):
    command = [MINISIGN, "-V", "-m", str(release / MANIFEST), "-p", str(keys / PUBLIC)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Trusted comment: fedmri release 1.0.0" in done.stdout
    flip(release / MANIFEST, 20)
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@needs_minisign
def test_we_verify_what_minisign_signed(tmp_path):
    file, public, secret = tmp_path / "file", tmp_path / "m.pub", tmp_path / "m.key"
    file.write_bytes(b"content")
    made = subprocess.run([MINISIGN, "-G", "-W", "-p", str(public), "-s", str(secret)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this minisign makes no key without a passphrase")
    command = [MINISIGN, "-S", "-s", str(secret), "-m", str(file), "-t", "theirs"]
    subprocess.run(command, capture_output=True, check=True)
    assert verify(file, b"content", read_public(public)) == "theirs"
    with pytest.raises(FedMRIError, match="does not fit"):
        verify(file, b"Content", read_public(public))
