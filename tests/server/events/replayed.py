"""A run folder against its own log: what is told elsewhere must follow from the events."""

import json
from pathlib import Path

from server.events.log import read_events
from server.events.rounds import as_line, rounds_of
from server.events.status import as_table, status_of
from server.run.round_lines import read_rounds


def require_replayed(out: Path) -> None:
    """rounds.jsonl, status.json and the report's rounds are what events.jsonl leads to."""
    entries = read_events(out).entries
    lines = [as_line(record) for record in rounds_of(entries).done]
    assert json.loads(json.dumps(lines)) == read_rounds(out)
    assert as_table(status_of(entries)) == json.loads((out / "status.json").read_text())
    if (out / "report.json").is_file():
        assert json.loads((out / "report.json").read_text())["rounds"] == read_rounds(out)
