"""Rounds and status follow from the events: of written ones, by hand, and of a real small run."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from common.errors import BUDGET_SPENT
from common.messages.round import SiteReply, read_task, write_reply
from server.events import status
from server.events.kinds import (
    Aggregated,
    Answered,
    Asked,
    Began,
    BudgetEnded,
    BudgetSpent,
    Ended,
    Evaluated,
    Kept,
    Opened,
    Paused,
    Refused,
    Resumed,
    Retried,
    Spared,
    StateChanged,
)
from server.events.log import Entry, read_events
from server.events.rounds import as_line, rounds_of
from server.run.ending import leave_error
from server.run.federate import federate
from tests.server.events.replayed import require_replayed
from tests.server.made_up_sites import plan, site_nodes


def entries(*events):
    """A second apart, from noon on."""
    return [Entry(f"2026-11-29T12:00:{second:02d}.500+00:00", event) for second, event in enumerate(events)]


def asked(number, attempt, *sites, what="train"):
    return [Asked(number, attempt, site, what, 100) for site in sites]


def answered(number, attempt, *sites, what="train"):
    return [Answered(number, attempt, site, what, 1.5, 40) for site in sites]


def closed(number, *sites):
    return [Aggregated(number, 9.0, sites, {"loss": 0.5}), Evaluated(number, {"mcc": 0.25}), Kept(number)]


FIRST = (  # c is asked for weights beside the round; b's reply is refused, c's does not come, then c's is refused
    Began(3),
    *asked(1, 0, "c", what="weights"),
    *answered(1, 0, "c", what="weights"),
    Opened(1),
    *asked(1, 1, "a", "b", "c"),
    *answered(1, 1, "a", "b"),
    Refused(1, 1, "b", "train", "federation.max_update_norm", "too large"),
    Refused(1, 1, "c", "train", "no-reply", "no reply within 9 s"),
    Retried(1, 2),
    *asked(1, 2, "b", "c"),
    *answered(1, 2, "b", "c"),
    Refused(1, 2, "c", "train", "site", "its data were refused"),
    *closed(1, "a", "b"),
)
FIRST_LINE = {
    "round": 1,
    "attempts": 2,
    "seconds": 9.0,
    "bytes_up": 160,
    "bytes_down": 500,
    "sites": ["a", "b"],
    "failures": [{"site": "c", "reason": "its data were refused", "rule": "site"}],
    "train": {"loss": 0.5},
    "trained": {"a": 1, "b": 2, "c": 2},
    "retried": [
        {"attempt": 1, "site": "b", "reason": "too large", "rule": "federation.max_update_norm"},
        {"attempt": 1, "site": "c", "reason": "no reply within 9 s", "rule": "no-reply"},
    ],
    "external_mcc": 0.25,
}


def lines(events):
    return [as_line(record) for record in rounds_of(entries(*events)).done]


def test_refusals_and_attempts_of_a_round():
    assert lines(FIRST) == [FIRST_LINE]


def test_pauses_spared_sites_and_a_budget():
    events = (
        Opened(2),
        Paused(2, "c", "failures", "paused after 3 failures in a row"),
        Spared(2, "d"),
        *asked(2, 1, "a", "b"),
        BudgetSpent(2, 1, "b", "train"),
        *closed(2, "a", "d"),
    )
    (line,) = lines(events)
    assert (line["paused"], line["idle"], line["sites"], line["trained"]) == (["c"], ["d"], ["a", "d"], {"a": 1})
    assert line["failures"] == [{"site": "b", "reason": BUDGET_SPENT, "rule": "budget"}]


def test_an_attempt_of_a_secure_round_begins_anew():
    stage = [*asked(1, 1, "a", "b", what="secure"), Refused(1, 1, "b", "secure", "crashed", "gone")]
    again = [Retried(1, 2, anew=True), *asked(1, 2, "a", what="secure"), *asked(1, 2, "a")]
    (line,) = lines((Opened(1), *stage, *again, *closed(1, "a")))
    assert (line["failures"], line["trained"], line["bytes_down"]) == ([], {"a": 1}, 400)
    assert line["retried"] == [{"attempt": 1, "site": "b", "reason": "gone", "rule": "crashed"}]


def test_what_a_resume_does_not_keep_is_played_again_and_what_it_cost_is_carried():
    lost = (Opened(2), *asked(2, 1, "a"), *closed(2, "a"), Opened(3), *asked(3, 1, "a"))
    again = (Opened(2), *asked(2, 1, "a"), *closed(2, "a"), Opened(3), *asked(3, 1, "a"), *closed(3, "a"))
    found = lines((*FIRST, *lost, Resumed(1, 3, {"a": 2}, 1), *again))
    assert [line["round"] for line in found] == [1, 2, 3]
    assert found[0] == FIRST_LINE
    assert [line.get("redone") for line in found] == [None, 1, None]
    assert [line["trained"] for line in found[1:]] == [{"a": 3}, {"a": 1}]


def test_a_round_that_budgets_end_is_no_finished_one():
    events = (
        Opened(2),
        *asked(2, 1, "a", "b"),
        *answered(2, 1, "a"),
        BudgetSpent(2, 1, "b", "train"),
        BudgetEnded(2, 4.0, ("a",)),
    )
    found = rounds_of(entries(*FIRST, *events))
    assert [record.round for record in found.done] == [1]
    assert found.unfinished is not None
    assert (found.unfinished.sites, found.unfinished.trained) == (("a",), {"a": 1})


def test_the_status_at_any_moment():
    events = (*FIRST, StateChanged("training", 2), Opened(2), *asked(2, 1, "a"), Paused(2, "b", "failures", "resting"))
    told = status.as_table(status.status_of(entries(*events)))
    last = len(events) - 1
    assert told["updated"] == f"2026-11-29T12:00:{last:02d}+00:00"
    assert told["since"] == f"2026-11-29T12:00:{last - 3:02d}+00:00"
    assert [told[key] for key in ("state", "round", "rounds", "attempt")] == ["training", 2, 3, 1]
    site = {"state": "failed", "seconds": 1.5, "bytes_up": 80, "bytes_down": 300, "failures": 2, "rule": "site"}
    assert told["sites"]["c"] == site | {"last_seen": "2026-11-29T12:00:15+00:00", "reason": "its data were refused"}
    assert (told["sites"]["a"]["state"], told["sites"]["b"]["state"]) == ("asked", "paused")
    over = status.status_of(entries(*events, Ended("failed", "the disk is full")))
    assert (over.state, over.round) == ("failed", 2)


class Killed(BaseException):
    """The process ends here."""


def test_a_real_run_that_is_asked_again_cut_off_torn_and_gone_on_with(folder, tmp_path, local_grid, caplog):
    nodes, count = site_nodes(2), Counter[int]()

    def unsteady(message):
        """Refuses at first; takes the server with it in the second round, once."""
        number = read_task(message.content).round
        count[number] += 1
        if (number, count[number]) == (2, 1):
            raise Killed
        error = "its data were refused" if number == count[number] == 1 else ""
        return write_reply(SiteReply("a", number, error=error)) if error else nodes[1](message)

    chosen = plan(folder, tmp_path / "run", ("a", "b"))
    with pytest.raises(Killed), leave_error(chosen.out):
        federate(local_grid({**nodes, 1: unsteady}), chosen)
    require_replayed(chosen.out)
    log = chosen.out / "events.jsonl"
    with log.open("a") as file:
        file.write('{"time": "2026-')
    before = log.read_bytes()
    federate(local_grid({**nodes, 1: unsteady}), replace(chosen, resume=True))
    require_replayed(chosen.out)
    assert log.read_bytes().startswith(before.removesuffix(b'{"time": "2026-'))
    assert "the log's end had been cut off by a crash, and was dropped" in caplog.text
    first, second = json.loads((chosen.out / "report.json").read_text())["rounds"]
    assert first["retried"] == [{"attempt": 1, "site": "a", "reason": "its data were refused", "rule": "site"}]
    assert (first["attempts"], first["trained"], second["trained"]) == (2, {"a": 2, "b": 1}, {"a": 2, "b": 2})
    found = [entry.event for entry in read_events(chosen.out).entries]
    assert [event.torn for event in found if isinstance(event, Resumed)] == [True]
    assert found[-1] == Ended("finished")
    assert [event.final for event in found if isinstance(event, Evaluated)] == [False, False, True]
