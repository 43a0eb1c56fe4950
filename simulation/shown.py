"""What a command of `fedmri-sim` shows while it works."""

from typing import Any

from common.terminal.progress import LongWork
from server.events.words import round_line


class Shown(LongWork):
    """How far the work is, and one line for each finished round."""

    def on_round(self, record: dict[str, Any]) -> None:
        """A finished round."""
        self.note(round_line(record))
