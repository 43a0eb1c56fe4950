"""A terminal gets a bar, a log file a line now and then."""

from io import StringIO

import pytest
from rich.console import Console

from common.terminal.progress import LongWork, long_work


def test_a_log_file_gets_a_line_every_half_minute() -> None:
    text, now = StringIO(), [0.0]
    with LongWork(Console(file=text), lambda: now[0]) as work:
        for done in range(1, 10):
            now[0] = 10.0 * done
            work.progress("slices", done, 9)
        now[0] += 29
        work.progress("rounds", 1, None)
        now[0] += 31
        work.progress("rounds", 2, None)
    assert text.getvalue().splitlines() == ["slices: 4 of 9", "slices: 7 of 9", "rounds: 2"]


@pytest.mark.parametrize("total", [3, None])
def test_short_work_leaves_no_line(total: int | None) -> None:
    text = StringIO()
    with LongWork(Console(file=text)) as work:
        work.progress("one", 1, total)
        work.progress("two", 2, total)
    assert text.getvalue() == ""


def test_a_terminal_gets_the_newest_piece() -> None:
    text = StringIO()
    with LongWork(Console(file=text, force_terminal=True, width=80)) as work:
        work.progress("one", 1, 3)
        work.progress("two", 2, 3)
        work.note("said")
    assert "two" in text.getvalue()
    assert "said" in text.getvalue()


def test_work_is_shown_before_its_first_part_is_done() -> None:
    text = StringIO()
    with long_work("one patient", Console(file=text, force_terminal=True, width=80)):
        pass
    assert "one patient" in text.getvalue()


def test_a_log_file_counts_the_half_minute_from_the_beginning() -> None:
    text, now = StringIO(), [0.0]
    with long_work("patients", Console(file=text), lambda: now[0]) as report:
        now[0] = 40.0
        report(1, 2)
        now[0] = 50.0
        report(2, 2)
    assert text.getvalue().splitlines() == ["patients: 1 of 2"]
