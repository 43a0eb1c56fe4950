"""How long to wait before the next look for a request: little while a run is on, much while nothing happens."""

SHORTEST, LONGEST, SHARE = 0.25, 3.0, 20.0  # seconds; seconds; of what was waited, one in so many


def pause_after(waited: float) -> float:
    """Seconds until the next look.

    Args:
        waited: seconds since something last came.
    """
    return min(LONGEST, max(SHORTEST, waited / SHARE))
