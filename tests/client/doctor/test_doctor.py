"""`fedmri-site doctor`: each trouble told apart, by a real TLS server with certificates made here."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

import client.deployment.connectivity
import client.doctor.home
import client.doctor.network
import client.doctor.run
from client.cli.main import main
from client.deployment.exit_reasons import clock_fault, clock_words
from client.deployment.home import SiteHome, open_home
from client.deployment.provision import provision
from client.doctor.check_result import Finding
from client.doctor.network import check_network
from client.doctor.run import examine
from common.cli import config_path
from common.config.run import RunConfig, load_config
from tests.client.deployment.tls import Authority, door


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


def planned(name: str) -> RunConfig:
    return load_config(config_path(name))


def site(tmp_path: Path, authority: Authority, server: str) -> SiteHome:
    return provision(tmp_path / "bonn", server, authority.file).home


def rows(found: Iterator[Finding]) -> dict[str, Finding]:
    return {row.check: row for row in found}


def look(tmp_path: Path, authority: Authority, port: int, host: str = "127.0.0.1") -> dict[str, Finding]:
    return rows(check_network(site(tmp_path, authority, f"{host}:{port}"), patience=1.0))


def failures(found: dict[str, Finding]) -> list[str]:
    return [name for name, row in found.items() if row.level == "FAILED"]


def test_a_good_server(tmp_path: Path, authority: Authority) -> None:
    with door(*authority.issue(tmp_path)) as port:
        found = look(tmp_path, authority, port)
    assert {name: row.level for name, row in found.items()} == dict.fromkeys(("name", "port", "TLS", "health", "clock"), "ok")
    assert "89 more days" in found["TLS"].sentence or "90 more days" in found["TLS"].sentence


@pytest.mark.parametrize(
    ("issued", "words"),
    [
        ({"begin": -9.0, "end": -2.0}, "has expired"),
        ({"begin": 2.0}, "not valid yet"),
        ({"host": "other.example.org"}, "for another name than 127.0.0.1"),
        ({"host": "127.0.0.2"}, "for another name than 127.0.0.1"),
    ],
)
def test_a_bad_certificate_is_told_in_plain_words(tmp_path: Path, authority: Authority, issued: dict, words: str) -> None:
    with door(*authority.issue(tmp_path, **issued)) as port:
        found = look(tmp_path, authority, port)
    assert failures(found) == ["TLS"]
    assert words in found["TLS"].sentence
    assert found["port"].level == "ok"


def test_another_authority_even_of_the_same_name(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "evil").mkdir()
    with door(*Authority.make(tmp_path / "evil").issue(tmp_path)) as port:
        found = look(tmp_path, authority, port)
    assert failures(found) == ["TLS"]
    assert "not from the authority in ca.crt" in found["TLS"].sentence
    assert "telephone" in found["TLS"].advice


def test_a_certificate_that_ends_soon(tmp_path: Path, authority: Authority) -> None:
    with door(*authority.issue(tmp_path, end=5.5)) as port:
        row = look(tmp_path, authority, port)["TLS"]
    assert row.level == "warning"
    assert "5 more days" in row.sentence


@pytest.mark.parametrize(
    ("clock", "state", "words"),
    [
        (7200.0, "FAILED", "2.0 hours behind the server's"),
        (-7200.0, "FAILED", "2.0 hours ahead of the server's"),
        (-15.0, "FAILED", "ahead of the server's"),
        (60.0, "warning", "60 s behind the server's"),
    ],
)
def test_a_wrong_clock(tmp_path: Path, authority: Authority, clock: float, state: str, words: str) -> None:
    with door(*authority.issue(tmp_path), clock=clock) as port:
        row = look(tmp_path, authority, port)["clock"]
    assert row.level == state
    assert words in row.sentence.replace("61 s", "60 s").replace("59 s", "60 s")


def test_the_clock_is_judged_as_flower_does() -> None:
    assert not clock_fault(4.0)
    assert clock_fault(6.0)
    assert not clock_fault(-290.0)
    assert "5 minutes behind" in clock_fault(-310.0)
    assert clock_words(1.0) == "1 s ahead of"


def test_an_answer_without_a_date(tmp_path: Path, authority: Authority) -> None:
    with door(*authority.issue(tmp_path), dated=False) as port:
        assert look(tmp_path, authority, port)["clock"].level == "warning"


def test_a_door_without_a_server_behind(tmp_path: Path, authority: Authority) -> None:
    with door(*authority.issue(tmp_path), status=502) as port:
        found = look(tmp_path, authority, port)
    assert failures(found) == ["health"]
    assert "502" in found["health"].sentence


def test_a_server_that_never_answers_the_request(tmp_path: Path, authority: Authority) -> None:
    with door(*authority.issue(tmp_path), silent=True) as port:
        found = look(tmp_path, authority, port)
    assert failures(found) == ["health"]


def test_a_dead_port(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    found = look(tmp_path, authority, port)
    assert list(found) == ["name", "port"]
    assert "refused" in found["port"].sentence


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what comes, as a firewall does."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        first.connect(("127.0.0.1", port))
        yield port


def test_a_black_hole_ends_by_itself(tmp_path: Path, authority: Authority) -> None:
    with black_hole() as port:
        found = look(tmp_path, authority, port)
    assert failures(found) == ["port"]
    assert "no answer within 1 s" in found["port"].sentence
    assert "firewall" in found["port"].advice


def test_a_port_that_takes_the_connection_and_says_nothing(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = look(tmp_path, authority, int(listener.getsockname()[1]))
    assert failures(found) == ["TLS"]
    assert "never answers" in found["TLS"].sentence


def test_a_port_without_tls(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(4096)
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = look(tmp_path, authority, int(listener.getsockname()[1]))
        thread.join()
    assert failures(found) == ["TLS"]
    assert "does not speak TLS" in found["TLS"].sentence


def test_a_name_that_is_none(tmp_path: Path, authority: Authority) -> None:
    found = look(tmp_path, authority, 443, host="nowhere.invalid")
    assert list(found) == ["name"]
    assert "nowhere.invalid" in found["name"].sentence


def test_a_resolver_that_never_answers(tmp_path: Path, authority: Authority, monkeypatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: ended.wait(20.0) and [])
    found = look(tmp_path, authority, 443, host="fedmri.example.org")
    ended.set()
    assert "no answer within 1 s" in found["name"].sentence


@pytest.fixture
def quick(tmp_path: Path, authority: Authority) -> Iterator[SiteHome]:
    with door(*authority.issue(tmp_path)) as port:
        yield site(tmp_path, authority, f"127.0.0.1:{port}")


def test_a_new_site_is_ready_and_told_that_no_bundle_is_approved(quick: SiteHome, capsys) -> None:
    assert main(["doctor", str(quick.folder), "--quick"]) == 0
    out = capsys.readouterr().out
    assert "Fit to take part. FAILED: 0." in out
    assert "None is approved: nothing will run here" in out


def test_json(quick: SiteHome, capsys) -> None:
    (quick.folder / "bundles.txt").write_text(f"# ours\n{'a' * 64}  2026-01-01  read\n")
    assert main(["doctor", str(quick.folder), "--quick", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["passed"] is True
    told = {row["check"]: row for row in answer["checks"]}
    assert told["bundles"]["sentence"] == "1 approved."
    assert told["clock"]["level"] == "ok"
    assert told["data"]["level"] == "note"
    assert "dry run" not in told


def spoil_salt(home: SiteHome) -> None:
    (home.key.parent / "ledger.salt").write_text("salt")
    (home.key.parent / "ledger.salt").chmod(0o644)


def spoil_settings(home: SiteHome) -> None:
    home.toml.write_text(home.toml.read_text() + "\n[polcy]\n")


@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
        (spoil_settings, "site.toml", "polcy"),
        (lambda home: home.key.unlink(), "key", "cannot be read"),
        (lambda home: home.key.chmod(0o644), "key", "chmod 600"),
        (lambda home: home.key.write_text("x"), "key", "OpenSSH"),
        (spoil_salt, "keys", "ledger.salt: other users may read this secret of the site (mode 0644). Run: chmod 600"),
        (lambda home: home.ca.write_text("x"), "ca.crt", "PEM"),
        (lambda home: (home.folder / "bundles.txt").write_text("yes\n"), "bundles", "line 1"),
        (lambda home: (home.folder / "privacy-ledger.jsonl").write_text("{}\n"), "ledger", "ledger"),
    ],
)
def test_what_is_broken_at_the_site_is_named(quick: SiteHome, spoil, check: str, words: str) -> None:
    spoil(quick)
    found = rows(examine(quick.folder, quick=True))
    assert check in failures(found)
    assert words in found[check].sentence


def test_a_public_key_of_another_key_is_noticed(quick: SiteHome) -> None:
    quick.public_key.write_text("ecdsa-sha2-nistp384 AAAA other\n")
    assert rows(examine(quick.folder, quick=True))["key"].level == "FAILED"


def test_weights_are_held_against_the_pin(quick: SiteHome) -> None:
    found = rows(examine(quick.folder, planned("demo"), quick=True))["weights"]
    sha256 = found.sentence.split("SHA-256 ")[1].split(";")[0]
    assert found.level == "ok"
    text = quick.toml.read_text()
    quick.toml.write_text(text.replace('backbone_sha256 = ""', f'backbone_sha256 = "{sha256}"'))
    assert "as pinned" in rows(examine(quick.folder, planned("demo"), quick=True))["weights"].sentence
    quick.toml.write_text(text.replace('backbone_sha256 = ""', f'backbone_sha256 = "{"0" * 64}"'))
    assert rows(examine(quick.folder, planned("demo"), quick=True))["weights"].level == "FAILED"


def test_the_sites_own_file_of_weights_stands_for_the_runs(quick: SiteHome) -> None:
    text = quick.toml.read_text()
    quick.toml.write_text(text.replace('weights = ""', 'weights = "gone.safetensors"'))
    other = load_config(config_path("demo"), ("weights=/no/such.safetensors",))
    for config in (other, None):
        row = rows(examine(quick.folder, config, quick=True))["weights"]
        assert row.level == "FAILED"
        assert "gone.safetensors" in row.sentence


def test_weights_that_the_run_would_not_find_are_not_ok_and_it_says_what_to_do(quick: SiteHome) -> None:
    """By the request's own way: what this checkout has beside its code, a bundle has not."""
    other = load_config(config_path("demo"), ("weights=/no/such.safetensors",))
    row = rows(examine(quick.folder, other, quick=True))["weights"]
    assert row.level == "FAILED"
    assert f"fedmri-site weights add {quick.folder} FILE" in row.advice
    for kept in quick.weights.iterdir():
        kept.write_bytes(kept.read_bytes()[:-1])
    assert rows(examine(quick.folder, planned("demo"), quick=True))["weights"].level == "ok"  # laid anew, as before a request
    (quick.weights / f"{'a' * 64}.safetensors").write_bytes(b"cut")
    row = rows(examine(quick.folder, planned("demo"), quick=True))["weights"]
    assert (row.level, "damaged" in row.sentence) == ("FAILED", True)


def fill(folder: Path, patients: int = 5) -> None:
    random = np.random.default_rng(0)
    for number in range(patients):
        anat = folder / f"sub-{number}" / "anat"
        anat.mkdir(parents=True)
        for kind in ("T1w", "FLAIR"):
            voxels = random.uniform(50, 200, (24, 24, 6)).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), anat / f"sub-{number}_{kind}.nii.gz")
    rows = [f"sub-{number}\toligodendroglioma" for number in range(patients)]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tsubtype", *rows]) + "\n")


def everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("config", ["demo", "private"])
def test_a_step_is_tried_and_leaves_nothing(quick: SiteHome, tmp_path: Path, monkeypatch, config: str) -> None:
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    fill(quick.folder)
    before = everything(quick.folder)
    found = rows(examine(quick.folder, planned(config)))
    assert found["data"].level == "ok"
    assert found["dry run"].level == "ok", found["dry run"]
    assert "on 4 patients" in found["dry run"].sentence
    assert everything(quick.folder) == before
    assert not (tmp_path / "cache").exists()
    # PyTorch makes a folder for its compiler at the first import of it, in whichever test that is.
    assert not [left for left in (tmp_path / "temporary").iterdir() if not left.name.startswith("torchinductor_")]


@pytest.mark.slow
def test_where_no_patient_is_usable_nothing_is_tried(quick: SiteHome) -> None:
    fill(quick.folder, 2)
    for file in quick.folder.glob("sub-*/anat/*FLAIR*"):
        file.write_bytes(file.read_bytes()[:100])
    found = rows(examine(quick.folder, planned("demo")))
    assert found["data"].level == "FAILED"
    assert "2 patients, 2 with a label; stay out: 2, errors: 2" in found["data"].sentence
    assert "fedmri-site check" in found["data"].advice
    assert found["dry run"].level == "note"


@pytest.mark.slow
def test_one_patient_who_stays_out_is_a_warning(quick: SiteHome) -> None:
    fill(quick.folder, 3)
    file = next(quick.folder.glob("sub-1/anat/*FLAIR*"))
    file.write_bytes(file.read_bytes()[:100])
    found = rows(examine(quick.folder, planned("demo")))
    assert found["data"].level == "warning"
    assert "3 patients, 3 with a label; stay out: 1, errors: 1" in found["data"].sentence
    assert found["dry run"].level == "ok", found["dry run"]


def test_little_room(quick: SiteHome, monkeypatch) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr("shutil.disk_usage", lambda path: real(path)._replace(free=10**6))
    assert {"disk: state", "disk: cache"} <= set(failures(rows(examine(quick.folder, quick=True))))


def test_a_read_only_file_system_is_told_from_missing_rights(quick: SiteHome, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "this user may not write to" in rows(examine(quick.folder, quick=True))["disk: state"].sentence
    whole = os.statvfs(quick.folder)
    plain = {name: getattr(whole, name) for name in dir(whole) if name.startswith("f_")}
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(**plain | {"f_flag": whole.f_flag | os.ST_RDONLY}))
    found = rows(examine(quick.folder, quick=True))["disk: state"]
    assert (found.level, "read-only file system" in found.sentence) == ("FAILED", True)
    assert "Mount it for writing" in found.advice


def test_a_folder_of_patients_that_is_gone_is_seen_by_a_quick_look_too(quick: SiteHome) -> None:
    text = quick.toml.read_text()
    quick.toml.write_text(
        f'data = "brains"\n{text}' if "\ndata = " not in text else re.sub("(?m)^data = .*$", 'data = "brains"', text)
    )
    assert failures(rows(examine(quick.folder, quick=True))) == ["data"]
    (quick.folder / "brains").mkdir()
    assert not failures(rows(examine(quick.folder, quick=True)))


def test_hours_are_told_in_local_time(quick: SiteHome, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    minute = (int(time.time()) // 60 + 120) % 1440  # begins in two hours, lasts one
    span = "-".join(f"{m // 60 % 24:02d}:{m % 60:02d}" for m in (minute, minute + 60))
    quick.toml.write_text(quick.toml.read_text().replace('hours = ""', f'hours = "{span}"'))
    row = rows(examine(quick.folder, quick=True))["hours"]
    assert row.level == "note"
    assert "UTC" in row.sentence
    assert span in row.sentence


def test_a_folder_that_is_no_deployed_site(tmp_path: Path, capsys) -> None:
    assert main(["doctor", str(tmp_path)]) == 1
    assert "fedmri-site init" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


def test_a_connection_without_a_server_is_no_deployed_site(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[policy]\nshare_counts = true\n")
    row = next(examine(tmp_path))
    assert row.level == "FAILED"
    assert "[connection]" in row.sentence
    with pytest.raises(Exception, match="init"):
        open_home(tmp_path)


def test_refused_bundles_wait_to_be_read(quick: SiteHome) -> None:
    refused = quick.state / "refused" / f"{'b' * 64}.fab"
    refused.parent.mkdir()
    refused.write_bytes(b"")
    row = rows(examine(quick.folder, quick=True))["bundles"]
    assert row.level == "warning"
    assert "bbbbbbbbbbbb" in row.sentence
    (quick.folder / "bundles.txt").write_text(f"{'b' * 64}\n")
    assert rows(examine(quick.folder, quick=True))["bundles"].level == "ok"


def test_another_bundle_than_the_invited_one_was_approved(quick: SiteHome) -> None:
    (quick.folder / "invitation").mkdir()
    (quick.folder / "invitation" / f"{'b' * 64}.fab").write_bytes(b"")
    (quick.folder / "bundles.txt").write_text(f"{'c' * 64}\n")  # a slip of the pen
    row = rows(examine(quick.folder, quick=True))["bundles"]
    assert row.level == "warning"
    assert "bbbbbbbbbbbb" in row.sentence
    assert row.advice.endswith(f"fedmri-site approve {shlex.quote(str(quick.folder))} {'b' * 64}")
    (quick.folder / "bundles.txt").write_text(f"{'b' * 64}\n")
    assert rows(examine(quick.folder, quick=True))["bundles"].level == "ok"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [("secure_only = false", "secure_only = true", "secure_only"), ("epsilon = 0.0", "epsilon = 8.0", "privacy budget")],
)
def test_a_run_that_the_policy_does_not_take_part_in(quick: SiteHome, before: str, after: str, words: str) -> None:
    assert rows(examine(quick.folder, planned("demo"), quick=True))["policy"].level == "ok"
    quick.toml.write_text(quick.toml.read_text().replace(before, after))
    found = rows(examine(quick.folder, planned("demo"), quick=True))
    assert failures(found) == ["policy"]
    assert words in found["policy"].sentence


def test_a_damaged_audit_log_keeps_everything_in(quick: SiteHome) -> None:
    (quick.state / "audit.jsonl").write_text("{}\n")
    assert failures(rows(examine(quick.folder, quick=True))) == ["audit log"]


def test_an_expired_authority(tmp_path: Path, authority: Authority, quick: SiteHome, monkeypatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):  # two years on
            return datetime.fromtimestamp(time.time() + 2 * 365 * 86400, tz)

    monkeypatch.setattr(client.doctor.home, "datetime", Later)
    row = rows(client.doctor.home.check_ca(quick))["ca.crt"]
    assert row.level == "FAILED"
    assert "has expired" in row.sentence


def test_weights_from_the_hub_are_not_fetched(quick: SiteHome) -> None:
    row = rows(examine(quick.folder, planned("dinov2"), quick=True))["weights"]
    assert row.level == "warning"
    assert "nothing was fetched" in row.sentence


def test_a_check_that_breaks_is_a_row_and_the_others_go_on(quick: SiteHome, monkeypatch) -> None:
    def broken(home: SiteHome) -> Iterator[Finding]:
        raise ZeroDivisionError("odd")
        yield

    monkeypatch.setattr(client.doctor.run, "check_disk", broken)
    found = rows(examine(quick.folder, quick=True))
    assert "ZeroDivisionError: odd" in found["disk"].sentence
    assert "hours" in found


def test_whether_the_key_is_admitted_is_told_by_a_running_site_alone(quick: SiteHome, monkeypatch) -> None:
    assert rows(examine(quick.folder, quick=True))["admitted"].level == "note"
    told = {"connected": True, "state": "running", "sentence": "fine"}
    monkeypatch.setattr("client.deployment.status.site_status", lambda home: told)
    assert rows(client.doctor.network.check_admitted(quick))["admitted"].level == "ok"
    told |= {"connected": False, "sentence": "the server does not know this site's key"}
    assert rows(client.doctor.network.check_admitted(quick))["admitted"].level == "warning"
