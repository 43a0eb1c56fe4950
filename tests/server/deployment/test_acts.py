"""The coordinator's own log: each act stands in it before it is done, and no line can be changed unseen."""

import json
from pathlib import Path

import pytest

from common.hash_chain import START, follow
from server.cli.main import main
from server.deployment.acts import ADMIT, NAME, acting
from server.deployment.home import Home, ServerSettings
from server.deployment.provision import init_home
from server.events.kinds import TOO_LARGE, Opened
from server.events.log import EVENTS
from server.strategy.progress import Progress
from tests.server.deployment.test_registry import key  # noqa: F401


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "home", ServerSettings(address="localhost:8443"))


def entries(home: Home) -> list[dict[str, object]]:
    """The log by a reader of its own."""
    head, found = START, []
    for line in (home.folder / NAME).read_text().splitlines():
        content, head = follow(head, line)
        found.append(content)
    return found


def test_acts_stand_in_the_log_and_what_failed_says_why(home: Home, key, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    where, file = str(home.folder), str(key("a"))
    assert main(["admit", where, file, "--name", "a", "--patients", "120"]) == 0
    assert main(["admit", where, str(key("b")), "--name", "a"]) == 2
    assert main(["revoke", where, "a"]) == 0
    assert main(["revoke", where, "nobody"]) == 2
    assert main(["stop", where]) == 0
    told = [(entry["event"], entry.get("site"), "failed" in entry) for entry in entries(home)]
    admit = ("admit", "a", False)
    assert told == [admit, admit, ("admit", "a", True), ("revoke", "a", False), ("revoke", "nobody", True), ("stop", None, False)]
    assert entries(home)[0]["patients"] == 120
    assert all(entry["who"] for entry in entries(home))
    capsys.readouterr()
    assert main(["log", where, "--json"]) == 0
    assert [entry["event"] for entry in json.loads(capsys.readouterr().out)["entries"]] == [event for event, _, _ in told]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_is_named(home: Home, line: int, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        with acting(home, ADMIT, site=name):
            pass
    log = home.folder / NAME
    lines = log.read_text().splitlines(keepends=True)
    lines[line] = lines[line].replace('"site":"', '"site":"x')
    log.write_text("".join(lines))
    assert main(["log", str(home.folder)]) == 1
    assert f"line {line + 1}: not as it was written" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_written_down_is_not_done_but_a_key_can_always_be_revoked(
    home: Home,
    key,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = str(home.folder)
    assert main(["admit", where, str(key("a")), "--name", "a"]) == 0
    (home.folder / NAME).write_text("no chain\n")  # as after damage: nothing can be chained on
    assert main(["admit", where, str(key("b")), "--name", "b"]) == 1
    assert "its last line is damaged" in " ".join(capsys.readouterr().err.split())
    assert not (home.folder / "sites" / "b.pub").exists()
    assert main(["revoke", where, "a"]) == 1
    assert not (home.folder / "sites" / "a.pub").exists()


def test_the_log_of_a_run_needs_its_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(tmp_path / "run", 2)
    progress.tell(Opened(1))
    progress.asked("a", 2_000_000)
    progress.failed("a", "too large", TOO_LARGE)
    progress.close()
    with (tmp_path / "run" / EVENTS).open("a") as file:
        file.write('{"time": "2030-01-01T00:00:00+00:00", "event": "danced"}\n{"half')
    assert main(["log", "--run", str(tmp_path / "run")]) == 0
    said = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert said[:4] == [
        "The run begins: 2 rounds",
        "Round 1: begins",
        "Round 1: a: asked, 2.0 MB",
        "Round 1: a: refused by federation.max_update_norm: too large",
    ]
    assert "no event of this version" in said[4]
    assert main(["log", "--run", str(tmp_path / "run"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["began", "round", "asked", "refused", "danced"]
    (tmp_path / "run" / "run.json").write_text('{"run": "2709a776ab5d6dfe"}')
    assert main(["log", "--run", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("Run 2709a776ab5d6dfe at the hospitals")
    assert main(["log", "--run", str(tmp_path / "run"), "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


def test_a_run_without_a_log_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "--run", str(tmp_path)]) == 1
    assert "runs of earlier versions have no such log" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["log"])
