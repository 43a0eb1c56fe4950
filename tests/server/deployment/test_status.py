"""The coordinator's status on a terminal: a name in pieces is no name, and attempts and refusals are seen."""

from io import StringIO

from rich.console import Console

from server.deployment.run_status import failure
from server.deployment.status import ServerStatus, SiteStatus, show


def test_names_stay_whole_at_eighty_columns() -> None:
    run = {
        "state": "failed",
        "seconds": 31.0,
        "bytes_up": 3e6,
        "bytes_down": 3e6,
        "failures": 2,
        "reason": "the disk is full " * 5,
    }
    sites = tuple(SiteStatus(name, "registered", "", run) for name in ("university-north", "university-coast"))
    programs = {"superlink": {"state": "running", "since": "", "restarts": 0, "reason": "it was killed by a signal " * 4}}
    told = {"folder": "RUN", "state": "training", "round": 2, "rounds": 9, "sites": {}}
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, programs, sites, told)
    text = StringIO()
    Console(file=text, width=80).print(show(status))
    assert all(name in text.getvalue() for name in ("university-north", "university-coast", "superlink", "registered"))
    assert max(len(line) for line in text.getvalue().splitlines()) <= 80


def test_attempts_and_refusals_are_seen() -> None:
    run = {"state": "failed", "failures": 2, "rule": "federation.max_update_norm", "reason": "The norm is beyond it."}
    last = {"round": 2, "attempts": 2, "seconds": 3.0, "bytes_up": 1, "bytes_down": 1, "sites": ["a"]}
    last |= {"failures": [{"site": "b", "reason": "no reply within 9 s", "rule": "no-reply"}]}
    told = {"folder": "RUN", "state": "training", "round": 3, "rounds": 9, "attempt": 2, "sites": {}, "last_round": last}
    site = SiteStatus("b", "online", "", run)
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, {}, (site,), told)
    text = StringIO()
    Console(file=text, width=200).print(show(status))
    lines = text.getvalue().splitlines()
    assert any("refused by federation.max_update_norm: The norm is beyond it." in line for line in lines)
    assert "Run RUN: training, round 3 of 9, attempt 2" in lines
    assert "Last finished: Round 2: 1 site, 3.0 s, 0.0 MB, 2 attempts" in lines
    assert "  b: no-reply: no reply within 9 s" in lines


def test_why_a_run_failed_stands_beside_its_state(tmp_path) -> None:
    (tmp_path / "error.json").write_text('{"error": "The external folder is gone.\\nMend it."}')
    why = failure(tmp_path)
    told = {"folder": "RUN", "state": "failed", "round": 1, "rounds": 9, "sites": {}, "error": why}
    status = ServerStatus("federation", "localhost:8443", "running", "serving", "serving", 90, {}, (), told)
    text = StringIO()
    Console(file=text, width=200).print(show(status))
    assert "Run RUN: failed (The external folder is gone. Mend it.), round 1 of 9" in text.getvalue().splitlines()
    assert failure(tmp_path / "elsewhere") == ""
