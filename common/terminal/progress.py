"""How far long work is: a bar on a terminal, a line now and then where standard error is a file or a pipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EVERY = 30.0  # seconds between two lines of one piece of work

Report = Callable[[int, int | None], None]
"""Called with how much is done, and of how much (None: not known)."""


class LongWork:
    """Pieces of long work, one after the other; the bar shows the newest.

    Args:
        console: where it is shown; None: standard error.
        clock: seconds, from any beginning.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._clock, self._name, self._said = clock, "", clock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, what: str, done: int, total: int | None) -> None:
        """How far the piece of that name is."""
        if what != self._name:
            for task in self._bar.task_ids:
                self._bar.update(task, visible=False)
            self._name, self._said = what, self._clock()
            self._bar.add_task(what, total=total)
        self._bar.update(self._bar.task_ids[-1], completed=done, total=total)
        if not self.console.is_terminal and self._clock() - self._said >= EVERY:
            self._said = self._clock()
            self.note(f"{what}: {done} of {total}" if total else f"{what}: {done}")

    def note(self, sentence: str) -> None:
        """What the user should read now."""
        self.console.print(sentence, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def long_work(what: str, console: Console | None = None, clock: Callable[[], float] = monotonic) -> Iterator[Report]:
    """One piece of it, which is shown from its beginning: the first of few patients may take minutes. Args as `LongWork`."""
    with LongWork(console, clock) as work:
        work.progress(what, 0, None)
        yield lambda done, total: work.progress(what, done, total)
