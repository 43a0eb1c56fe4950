"""The coordinator's status on a narrow terminal: a name in pieces is no name."""

from io import StringIO

from rich.console import Console

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
