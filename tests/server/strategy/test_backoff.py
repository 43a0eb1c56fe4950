"""Failures in a row, pauses, and their end."""

from hypothesis import given
from hypothesis import strategies as st

from common.errors import BUDGET_SPENT
from server.strategy.backoff import Attendance


def play(outcomes: str, after: int = 3, rounds: int = 2) -> str:
    """Whether site s is paused in each round: it fails (f), answers (.), has no budget (b), is away ( )."""
    attendance, seen = Attendance(after, rounds), ""
    for outcome in outcomes:
        paused = "s" in attendance.paused()
        seen += "p" if paused else "-"
        reason = {"f": "gone", "b": BUDGET_SPENT}.get(outcome)
        failures = {"s": reason} if reason and not paused else {}
        attendance.note(["other", *(["s"] if outcome == "." and not paused else [])], failures)
    return seen


def test_a_site_is_paused_after_failures_in_a_row_and_asked_once_more():
    assert play("fffffffff") == "---pp-pp-"
    assert play("fffff..ff") == "---pp----"


def test_a_good_answer_ends_the_count():
    assert play("ff.ff.fff") == "---------"
    assert play("ff.fff..") == "------pp"


def test_a_spent_budget_and_absence_are_no_failures():
    assert play("bbbbbb") == "------"
    assert play("ffb f.") == "-----p"


def test_zero_never_pauses():
    assert play("ffffff", after=0) == "------"


@given(st.text("f.b ", max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_nobody_is_paused_for_longer_than_agreed(outcomes, after, rounds):
    assert "p" * (rounds + 1) not in play(outcomes, after, rounds)


def test_lines_of_the_run_say_the_same_as_its_rounds():
    told, read = Attendance(2, 3), Attendance(2, 3)
    for _ in range(2):
        told.note(["a"], {"b": "gone"})
        read.note_line({"sites": ["a"], "failures": [{"site": "b", "reason": "gone"}]})
    assert told == read
    assert read.paused() == {"b": 3}
