"""A patient withdraws: no run uses them any more, the cache lets go of them, and the site says what has used them."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from client.cli.main import main
from client.cli.withdraw import excluding
from client.gate import audit_log
from client.round.site_context import SiteContext
from client.round.trained_on import note_trained
from common.config.run import RunConfig, config_from_table
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.forgetting import entries
from common.errors import ConfigError
from common.messages.round import Task
from tests.client.deployment.tls import Authority

CONFIG = config_from_table({"data": {"size": 32, "slices": 2}})


@pytest.fixture
def home(tmp_path: Path, phantom: Path, monkeypatch) -> Path:
    """A hospital of two patients, slices in the cache, who have trained in one run."""
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hospital"
    assert main(["init", str(folder), "--server", "localhost:8443", "--ca", str(Authority.make(tmp_path).file)]) == 0
    for name in ("sub-1", "sub-2"):
        shutil.copytree(phantom, folder / name)
        for file in (folder / name).rglob("sub-1_*"):
            file.rename(file.with_name(file.name.replace("sub-1", name)))
    next((folder / "sub-2").rglob("*FLAIR*")).unlink()
    next((folder / "sub-2").rglob("*T1w.nii.gz")).unlink()
    data = open_site(read_site(folder, CONFIG), CONFIG.data, tmp_path / "cache", workers=1)
    for number in (1, 2):
        note_trained(SiteContext("a", folder / "site.toml", tmp_path / "cache", False), Task(number, "", "", "", "run-a"), data)
    (folder / "privacy-ledger.jsonl").write_text("marks\n")
    return folder


def patients(home: Path) -> list[str]:
    return [case.id for case in read_site(home, RunConfig()).cases]


@pytest.mark.slow
def test_who_withdraws_is_used_no_more_and_what_used_them_is_listed(home, tmp_path: Path, capsys) -> None:
    capsys.readouterr()
    assert main(["withdraw", str(home), "sub-2"]) == 0
    said = capsys.readouterr().out
    assert "Run run-a has trained on them, from round 1 to 2" in said
    assert patients(home) == ["sub-1"]
    assert entries(tmp_path / "cache") == []
    assert (home / "privacy-ledger.jsonl").read_text() == "marks\n"
    log = home / "state" / audit_log.LOG_NAME
    assert audit_log.verify(log).events == {"withdrawn": 1}
    assert "sub-2" not in log.read_text()
    assert main(["withdraw", str(home), "sub-2", "--json"]) == 0  # once more: nothing is excluded twice
    told = json.loads(capsys.readouterr().out)
    assert (told["excluded"], told["entries"], told["runs"]) == (False, 0, {"run-a": {"first": 1, "last": 2}})
    assert tomllib.loads((home / "site.toml").read_text())["exclude"] == ["sub-2"]
    assert main(["withdraw", str(home), "sub-9"]) == 2
    assert "No patient 'sub-9'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_cache_is_shown_and_pruned(home, tmp_path: Path, capsys) -> None:
    def told(*more: str) -> dict:
        capsys.readouterr()
        assert main(["cache", str(home), "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    assert [(entry["patients"], entry["gone"]) for entry in told()["entries"]] == [(2, False)]
    assert told("--prune")["pruned"] == 0
    shutil.rmtree(home / "sub-2")
    assert [entry["gone"] for entry in told()["entries"]] == [True]
    assert told("--prune")["pruned"] == 1
    assert told()["entries"] == entries(tmp_path / "cache") == []
    assert main(["cache", str(home)]) == 0


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("", ["sub-1"]),
        ('name = "a"\n\n[policy]\nexclude_me = 1\n', ["sub-1"]),
        ('exclude = ["x"]  # why\n[policy]\n', ["x", "sub-1"]),
        ('# [not a section]\ndata = "d"\n', ["sub-1"]),
        ('exclude = ["sub-1"]\n', ["sub-1"]),
    ],
)
def test_one_line_of_site_toml_changes(text: str, listed: list[str]) -> None:
    new = excluding(text, "sub-1")
    assert tomllib.loads(new)["exclude"] == listed
    assert {k: v for k, v in tomllib.loads(new).items() if k != "exclude"} == {
        k: v for k, v in tomllib.loads(text).items() if k != "exclude"
    }
    assert excluding(new, "sub-1") == new


def test_an_exclude_over_several_lines_is_left_to_a_person() -> None:
    with pytest.raises(ConfigError, match="several lines"):
        excluding('exclude = [\n  "x",\n]\n', "sub-1")
    assert tomllib.loads(excluding("", "sub-[1]"))["exclude"] == ["sub-[[]1]"]  # a name is no pattern
