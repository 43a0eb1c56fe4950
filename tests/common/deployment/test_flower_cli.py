"""`flwr` judged by what it says, not by its exit code; a proxy and other settings of the user's are kept away."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.deployment import flower_cli as flower
from common.deployment.flower_cli import error_sentence, flower_environment, flwr, run_status
from common.errors import FederationError


@dataclass(frozen=True)
class SiteContext:
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    log: Path = Path("log")


def says(monkeypatch, answer: object, code: int = 0) -> None:
    done = subprocess.CompletedProcess([], code, "Using SuperLink\n" + json.dumps(answer), "")
    monkeypatch.setattr(flower, "call_flwr", lambda *_: done)


@pytest.mark.parametrize(("success", "code"), [(False, 0), (True, 1)])
def test_a_failed_flwr_command_says_why(tmp_path, monkeypatch, success, code):
    says(monkeypatch, {"success": success, "error-message": "unknown key 'x'"}, code)
    with pytest.raises(FederationError, match="`flwr run` failed: unknown key 'x'"):
        flwr(SiteContext(tmp_path), ["run"])


def test_the_status_of_a_run(tmp_path, monkeypatch):
    says(monkeypatch, {"success": True, "runs": [{"status": "finished:failed"}]})
    assert run_status(SiteContext(tmp_path), "1") == "finished:failed"
    says(monkeypatch, {"success": True, "runs": []})
    assert run_status(SiteContext(tmp_path), "1") == ""


def test_the_users_python_path_and_proxy_stay_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("NO_PROXY", "")
    environment = flower_environment(tmp_path)
    assert "PYTHONPATH" not in environment
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert environment["FLWR_HOME"] == str(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', "nonsense"])
def test_an_error_file_that_cannot_be_read_is_no_second_error(tmp_path, text):
    (tmp_path / "error.json").write_text(text)
    assert error_sentence(tmp_path / "error.json", "otherwise") == "otherwise"
