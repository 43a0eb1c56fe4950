"""What to do about a report.json that is damaged: all that it says can be measured anew from the run's last checkpoint."""

from pathlib import Path
from shlex import quote

from common.run_folder import REPORT_NAME

ASIDE = "report.damaged.json"
NEEDED = ("run.json", "rounds.jsonl", "checkpoints/latest.json")  # of the run folder, to go on with it


def how_to_mend(run: Path) -> str:
    """The sentences to end an error with.

    Args:
        run: the run folder, whose report.json is there and is not what was written.
    """
    if not all((run / name).is_file() for name in NEEDED):
        return f"Copy {REPORT_NAME} anew from where the run was made; without it the federation is to be run again."
    return (
        f"What was learned is not lost. Run: mv {quote(str(run / REPORT_NAME))} {quote(str(run / ASIDE))} and then the run's own "
        "command with --resume: it trains no finished round again, measures the model and writes the report."
    )
