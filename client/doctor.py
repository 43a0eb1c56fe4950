"""`fedmri-site doctor`: all that must be right before a hospital joins, a row each, with what to do where it is not."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.approved import LIST_NAME, approved
from client.home import SiteHome, open_home
from client.identity import certificate_fingerprint, fingerprint, read_ca, read_key
from common.errors import ConfigError

OK, WARNING, FAILED = "ok", "warning", "FAILED"
FEW_DAYS = 30.0  # before a certificate expires


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        state: "ok", "warning" or "FAILED".
        sentence: what was found.
        advice: what to do; "" where all is well.
    """

    check: str
    state: str
    sentence: str
    advice: str = ""


def examine(path: Path, *, config: str = "", quick: bool = False) -> Iterator[Row]:
    """Check a site, row after row as they are found. Nothing is written but the slice cache's folder, nothing leaves.

    Args:
        path: the site's folder, or its site.toml.
        config: name or file of the agreed run; "": weights and the trial of a batch are left out.
        quick: leave out what opens the patients' files: data and the trial.
    """
    from client.doctor_machine import check_machine  # noqa: PLC0415  (heavy, and a broken installation is to be told last)
    from client.doctor_network import check_network  # noqa: PLC0415
    from client.doctor_run import check_run  # noqa: PLC0415

    try:
        home = open_home(path)
    except ConfigError as error:
        yield Row("settings", FAILED, str(error), "Nothing else can be checked before.")
        return
    yield from check_settings(home)
    yield from check_network(home)
    yield from check_machine(home)
    yield from check_run(home, config, quick=quick)


def check_settings(home: SiteHome) -> Iterator[Row]:
    """What stands in the site's own folder."""
    yield Row("settings", OK, f"{home.toml} is understood; the site is {home.name}.")
    yield _key(home)
    yield _authority(home)
    yield _bundles(home)


def _key(home: SiteHome) -> Row:
    try:
        line = read_key(home.key)
    except ConfigError as error:
        return Row("key", FAILED, str(error), "Set it right as said.")
    if stat.S_IMODE(home.key.parent.stat().st_mode) & 0o077:
        return Row("key", WARNING, f"Other users may look into {home.key.parent}.", f"Run: chmod 700 {home.key.parent}")
    if home.key.stat().st_uid != os.geteuid():
        return Row("key", WARNING, f"{home.key} belongs to another user.", "Let one user own the folder and run the site.")
    if not home.public_key.is_file() or home.public_key.read_text(errors="replace").split()[:2] != line.split()[:2]:
        return Row(
            "key",
            WARNING,
            f"{home.public_key} is not this key's public half.",
            f"Write it anew: ssh-keygen -y -f {home.key} > {home.public_key}. The coordinator may have the wrong one.",
        )
    return Row("key", OK, f"{fingerprint(line)}: only this user may read it.")


def _authority(home: SiteHome) -> Row:
    try:
        certificate = read_ca(home.ca)
    except ConfigError as error:
        return Row("authority", FAILED, str(error), "Set it right as said.")
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86400
    if left < 0:
        return Row("authority", FAILED, f"{home.ca} expired {-left:.0f} days ago.", "Ask the coordinator for the new ca.crt.")
    found = f"SHA-256 {certificate_fingerprint(certificate)}, valid for {left:.0f} more days."
    if left < FEW_DAYS:
        return Row("authority", WARNING, found, "Ask the coordinator for the new ca.crt.")
    return Row("authority", OK, found)


def _bundles(home: SiteHome) -> Row:
    if not home.config.policy.approval:
        return Row(
            "bundles",
            WARNING,
            "policy.approval is false: whatever code the server sends is run.",
            "Set approval = true in site.toml.",
        )
    try:
        number = len(approved(home.folder))
    except ConfigError as error:
        return Row("bundles", FAILED, str(error), f"Correct {LIST_NAME}, or remove the line.")
    if not number:
        return Row(
            "bundles",
            WARNING,
            "No bundle is approved yet: every request will be refused.",
            f"Read the bundle that the coordinator announces, then: fedmri-site approve {home.folder} HASH",
        )
    return Row("bundles", OK, f"{number} approved.")
