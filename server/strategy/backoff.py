"""Pauses sites that failed several rounds in a row, so that the others need not wait for them.

All of it follows from the records of the rounds, so that a resumed run pauses the same sites.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.errors import BUDGET_SPENT


@dataclass
class Attendance:
    """Failures in a row of each site, and its pauses.

    Attributes:
        after: failed rounds in a row that lead to a pause; 0: there is none.
        rounds: that a pause lasts. Then the site is asked once: a good answer ends the matter, another failure the next pause.
    """

    after: int
    rounds: int
    _failed: dict[str, int] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)

    def note(self, sites: Collection[str], failures: Mapping[str, str]) -> None:
        """One finished round: who answered well, and who failed why. A spent budget is no failure; nor is one's absence."""
        for name in [name for name, left in self._left.items() if left]:
            self._left[name] -= 1
        for name in sites:
            self._failed.pop(name, None)
            self._left.pop(name, None)
        for name, reason in failures.items():
            if name in sites or reason == BUDGET_SPENT:
                continue
            self._failed[name] = self._failed.get(name, 0) + 1
            if self.after and self._failed[name] >= self.after:
                self._left[name] = self.rounds

    def note_line(self, line: Mapping[str, Any]) -> None:
        """The same from a line of rounds.jsonl."""
        self.note(line["sites"], {failure["site"]: failure["reason"] for failure in line["failures"]})

    def paused(self) -> dict[str, int]:
        """Sites that are not to be asked in the next round, and in how many rounds from it on."""
        return {name: left for name, left in sorted(self._left.items()) if left}

    def failed(self, name: str) -> int:
        """How many rounds in a row the site has failed."""
        return self._failed.get(name, 0)
