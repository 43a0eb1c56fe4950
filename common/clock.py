"""Whether this machine's clock was moved: the wall clock against one that counts on from the machine's start, sleep included."""

import time

JUMP_SECONDS = 4.0  # less is what NTP does to a running clock; Flower refuses signatures of 5 s from the future


def wall_offset() -> float:
    """Seconds between the wall clock and the one that nobody sets; it changes when the wall clock is set, and not otherwise."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def moved_since(offset: float) -> float:
    """By how many seconds the wall clock was set forward (negative: back) since `wall_offset` said `offset`; 0: it was not."""
    moved = wall_offset() - offset
    return moved if abs(moved) > JUMP_SECONDS else 0.0


def span_words(seconds: float) -> str:
    """Such as "2.0 hours"; of the size alone."""
    size = abs(seconds)
    return f"{size:.0f} s" if size < 120 else f"{size / 60:.0f} minutes" if size < 5400 else f"{size / 3600:.1f} hours"
