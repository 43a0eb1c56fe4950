"""What a command of `fedmri-sim` shows while it works."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.events.words import round_line

SEEN = Console(stderr=True)


class Shown:
    """Progress on standard error: one bar for what is being done, one line for each finished round."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=SEEN, transient=True, disable=not SEEN.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Shown":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """How far something is."""
        if what not in self._tasks:
            for task in self._tasks.values():
                self.bar.update(task, visible=False)
            self._tasks[what] = self.bar.add_task(what, total=total)
        self.bar.update(self._tasks[what], completed=done, total=total)

    def note(self, sentence: str) -> None:
        """What the user should read now."""
        SEEN.print(sentence, soft_wrap=True, markup=False, highlight=False)

    def on_round(self, record: dict[str, Any]) -> None:
        """A finished round."""
        self.note(round_line(record))
