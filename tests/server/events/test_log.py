"""events.jsonl: a closed list of kinds, added to line by line; what a crash cut off is dropped, what is damaged is refused."""

import json
import os
from typing import get_args

import pytest

from common.errors import FederationError
from server.events.kinds import KINDS, RULES, Asked, Event, Opened, Paused, Refused, Resumed, StateChanged
from server.events.log import EventLog, as_text, parse, read_events
from server.events.words import level, round_line, said

SOME = (Opened(1), Asked(1, 1, "a", "train", 7), Refused(1, 1, "a", "train", RULES[0], "no reply within 9 s"))


def write(run, events=SOME):
    log = EventLog(run)
    for event in events:
        log.append(as_text(event))
    log.close()
    return run / "events.jsonl"


def test_the_list_is_closed_and_each_kind_has_a_name():
    assert set(KINDS.values()) == set(get_args(Event))
    assert len(KINDS) == len(set(KINDS.values()))


def test_what_is_written_is_read(tmp_path):
    file = write(tmp_path)
    found = read_events(tmp_path)
    assert tuple(entry.event for entry in found.entries) == SOME
    assert (found.whole, found.torn) == (file.stat().st_size, False)
    assert read_events(tmp_path / "nowhere") == ((), 0, False)


@pytest.mark.parametrize("end", ['{"time": "20', "\0" * 30, '{"time": "2026-11-29", "event": "asked"}\n\0\0\n', '"x"\n'])
def test_what_a_crash_cut_off_is_dropped_and_the_next_line_takes_its_place(tmp_path, end):
    file = write(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole + end.encode())
    found = read_events(tmp_path)
    assert (len(found.entries), found.whole, found.torn) == (3, len(whole), True)
    log = EventLog(tmp_path, found.whole)
    log.append(as_text(Opened(2)), sync=True)
    assert read_events(tmp_path).entries[-1].event == Opened(2)
    assert not read_events(tmp_path).torn


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 2"),
        ('{"time": "2026-11-29T12:00:00+00:00", "event": "asked", "round": "x"}', "round: expected a whole number"),
        ('{"time": "2026-11-29T12:00:00+00:00", "event": "danced"}', "danced"),
        ('{"time": "noon", "event": "round", "round": 1}', "line 2"),
        ('{"time": "2026-11-29T12:00:00+00:00", "event": "round", "round": 1, "patient": "x"}', "Unknown key 'patient'"),
    ],
)
def test_a_line_that_is_damaged_before_others_is_named(tmp_path, line, says):
    file = write(tmp_path)
    first, _, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first, line + "\n", *rest]))
    with pytest.raises(FederationError, match=r"events\.jsonl, line 2") as caught:
        read_events(tmp_path)
    assert says in str(caught.value)
    assert "move it away" in str(caught.value)


def test_a_log_that_cannot_be_written_is_said_and_no_half_line_stays(tmp_path):
    file = write(tmp_path)
    whole, log = file.read_bytes(), EventLog(tmp_path, file.stat().st_size)

    class Full:
        """A disk with room for five bytes."""

        def write(self, line: bytes) -> int:
            with file.open("ab") as real:
                return real.write(line[:5])

    log._file = Full()  # type: ignore[assignment]
    with pytest.raises(FederationError, match=r"events\.jsonl could not be written \(No space left on device\).*--resume"):
        log.append(as_text(Opened(2)))
    assert file.read_bytes() == whole


def test_each_line_is_with_the_operating_system_at_once(tmp_path):
    log = EventLog(tmp_path)
    log.append(as_text(SOME[0]))
    child = os.fork()
    if not child:  # another process: nothing of ours is in its buffers when it ends like this
        os._exit(0 if len(read_events(tmp_path).entries) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_events_in_words():
    assert said(parse(as_text(SOME[2])).event) == "Round 1: a: no-reply: no reply within 9 s"
    large = Refused(3, 1, "b", "train", "federation.max_update_norm", "too large")
    assert said(large) == "Round 3: b: refused by federation.max_update_norm: too large"
    assert said(Resumed(4, 9, torn=True)).startswith("The run goes on after round 4 of 9; the log's end")
    assert said(StateChanged("waiting", 2)) == "Round 2: waiting"
    assert "\n" not in said(Paused(1, "a", "closed", "two\nlines"))
    assert [bool(level(event)) for event in (*SOME, large)] == [False, False, True, True]


def test_a_finished_round_in_words():
    line = {
        "round": 3,
        "attempts": 2,
        "seconds": 4.2,
        "bytes_up": 1_500_000,
        "bytes_down": 1_500_000,
        "sites": ["a"],
        "failures": [{"site": "b", "reason": "too large", "rule": "federation.max_update_norm"}],
        "retried": [{"attempt": 1, "site": "a", "reason": "no reply within 9 s", "rule": "no-reply"}],
        "paused": ["c"],
        "external_mcc": 0.5,
    }
    assert round_line(line).splitlines() == [
        "Round 3: 1 site, 4.2 s, 3.0 MB, external MCC 0.50, 2 attempts",
        "  attempt 1: a: no-reply: no reply within 9 s; asked again",
        "  b: refused by federation.max_update_norm: too large",
        "  c not asked",
    ]
    old = {"round": 1, "seconds": 1.0, "sites": ["a", "b"], "failures": [{"site": "c", "reason": "gone"}]}
    assert round_line(json.loads(json.dumps(old))).splitlines() == ["Round 1: 2 sites, 1.0 s, 0.0 MB", "  c: gone"]
