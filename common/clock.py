"""Whether this machine's clock was moved: the wall clock against one that counts on from the machine's start, sleep included."""

import threading
import time

LOOK_SECONDS = 1.0
JUMP_SECONDS = 4.0  # less is what NTP does to a running clock; Flower refuses signatures of 5 s from the future


def wall_offset() -> float:
    """Seconds between the wall clock and the one that nobody sets; it changes when the wall clock is set, and not otherwise."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def moved_since(offset: float) -> float:
    """By how many seconds the wall clock was set forward (negative: back) since `wall_offset` said `offset`; 0: it was not."""
    moved = wall_offset() - offset
    return moved if abs(moved) > JUMP_SECONDS else 0.0


class ClockWatch:
    """Remembers how far the wall clock was set while it watched, also where it was set right again before anybody asked.

    Use it as a context.
    """

    def __init__(self) -> None:
        self._began, self._farthest, self._over = wall_offset(), 0.0, threading.Event()

    def __enter__(self) -> "ClockWatch":
        threading.Thread(target=self._watch, daemon=True, name="fedmri-clock").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    @property
    def moved(self) -> float:
        """By how many seconds it was set forward (negative: back), at its farthest; 0: it was not."""
        self._farthest = max(self._farthest, moved_since(self._began), key=abs)
        return self._farthest

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            _ = self.moved


def span_words(seconds: float) -> str:
    """Such as "2.0 hours"; of the size alone."""
    size = abs(seconds)
    return f"{size:.0f} s" if size < 120 else f"{size / 60:.0f} minutes" if size < 5400 else f"{size / 3600:.1f} hours"
