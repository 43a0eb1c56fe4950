"""Doctor, the machine itself: disk, GPU, sleep, the hours in which the site trains."""

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import torch

from client.doctor import FAILED, OK, WARNING, Row
from client.home import SiteHome
from client.ledger import read_ledger
from client.policy import require_hours
from common.data.cache import default_cache
from common.errors import PolicyError, PrivacyError

LITTLE, TOO_LITTLE = 5e9, 5e8  # bytes that are free


def check_machine(home: SiteHome) -> Iterator[Row]:
    """What no network and no patient is needed for."""
    yield _disk("disk: state", home.state)
    yield _disk("disk: cache", default_cache())
    yield _gpu()
    yield _ledger(home)
    yield _hours(home)
    if any(Path("/sys/class/power_supply").glob("BAT*")):
        yield Row("sleep", WARNING, "This machine has a battery: it may go to sleep.", "Forbid it to sleep while the site runs.")


def _disk(check: str, folder: Path) -> Row:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    said = f"{free / 1e9:.1f} GB free at {there}."
    if not os.access(there, os.W_OK):
        return Row(check, FAILED, f"{there} cannot be written to.", f"Let this user write to {folder}.")
    if free < TOO_LITTLE:
        return Row(check, FAILED, said, "Make room: at least 5 GB.")
    return Row(check, WARNING, said, "Make room: 5 GB or more.") if free < LITTLE else Row(check, OK, said)


def _gpu() -> Row:
    if not torch.cuda.is_available():
        return Row(
            "GPU", WARNING, "None: training will run on the CPU.", "Nothing, if that is fast enough; the trial below says."
        )
    device = torch.cuda.get_device_properties(0)
    return Row("GPU", OK, f"{device.name}, {device.total_memory / 1e9:.0f} GB.")


def _ledger(home: SiteHome) -> Row:
    path = home.folder / home.config.privacy.ledger
    try:
        entries = len(read_ledger(path).entries)
    except PrivacyError as error:
        return Row("ledger", FAILED, str(error), "Restore it from a backup; without it nothing private is trained.")
    limit = home.config.privacy.epsilon
    said = f"{entries} charges so far; " + (f"the budget is epsilon {limit:g}." if limit else "no budget is set.")
    return Row("ledger", OK, said)


def _hours(home: SiteHome) -> Row:
    now, hours = datetime.now().astimezone(), home.config.policy.hours
    said = f"It is {now:%H:%M} here ({now.tzname()})"
    if not hours:
        return Row("hours", OK, f"{said}; the site trains at any time.")
    try:
        require_hours(home.config.policy, now)
    except PolicyError:
        return Row("hours", WARNING, f"{said}; the site trains {hours} only, and not now.", "Nothing, if the time zone is right.")
    return Row("hours", OK, f"{said}; the site trains {hours}, and now.")
