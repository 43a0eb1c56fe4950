"""Out of distribution: patients unlike those in training."""

from server.report.page.values import patients_text, percent, percent_text, wilson
from server.report.report import OutOfDistribution

KEPT = "That was kept."
BY_CHANCE = "That is more than stated, but within chance."
DIFFERENT = "This hospital's patients or scanners differ from the training hospitals'."


def read(found: OutOfDistribution | None) -> str:
    """How many were flagged against the stated rate, in sentences; nothing where nothing was scored."""
    if not found:
        return ""
    flagged, of, rate = found.flagged, found.of, found.rate
    if of and not found.scored:
        return (
            f"Nobody could be flagged: the training hospitals scored too few patients to say which of these {of} scores are too "
            "high. Whether these patients are like those in training is not known."
        )
    if flagged is None or not of or flagged > of:
        return ""
    return _counted(found, flagged, of, rate)


def _counted(found: OutOfDistribution, flagged: int, of: int, rate: float | None) -> str:
    """How many were flagged, where a threshold flags."""
    share = wilson(flagged, of)
    verb = "was" if flagged == 1 else "were"
    if found.held_back is not None:
        return (
            f"{flagged} of {patients_text(of)} {verb} flagged as out of distribution. Of the others it cannot be told: the "
            f"hospitals held back {patients_text(found.held_back)}, too few for a threshold that vouches for anybody."
        )
    said = f"{flagged} of {patients_text(of)} {verb} flagged as out of distribution: {percent_text(share)}."
    if rate is None or share.low is None or share.value is None:
        return said
    stated = f" Of patients like those in training, at most {percent(rate)} should be."
    if share.low > rate:
        return f"{said}{stated} {DIFFERENT}"
    return f"{said}{stated} {BY_CHANCE if share.value > rate else KEPT}"
