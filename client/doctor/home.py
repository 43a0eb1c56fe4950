"""Checks of a site's own folder: key, certificate authority, disk, approved bundles, ledger, audit log, hours."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote

from client.deployment.home import SiteHome
from client.deployment.join import offered
from client.deployment.keys import certificate_fingerprint, read_ca, read_key
from client.doctor.check_result import FAILED, NOTE, OK, WARNING, Finding
from client.gate.approvals import approved
from client.gate.audit_log import LOG_NAME, verify
from client.gate.ledger_watch import require_known
from client.policy.asking import require_hours
from client.privacy.budget import require_open
from client.privacy.ledger import NO_BUDGET, read_ledger
from common.config.run import RunConfig
from common.data.cache import default_cache
from common.deployment.private_file import require_private
from common.deployment.ssh_fingerprint import ssh_fingerprint
from common.errors import ConfigError, PolicyError

SOON_DAYS = 30.0
OWNER = "Change its owner or its rights."
LOW_BYTES, FEW_BYTES = 200e6, 2e9  # of free disk: below the first nothing is certain to be written


def check_key(home: SiteHome) -> Iterator[Finding]:
    """The private key exists, is readable by this user alone, and belongs to keys/site.pub."""
    line = read_key(home.key)
    shown = f"{home.key}, {ssh_fingerprint(line)}"
    try:
        public = " ".join(home.public_key.read_text(encoding="utf-8").split()[:2])
    except (OSError, UnicodeDecodeError):
        advice = f"Write it again: ssh-keygen -y -f '{home.key}' > '{home.public_key}'"
        yield Finding("key", WARNING, f"{shown}; but {home.public_key} cannot be read.", advice)
        return
    if public != " ".join(line.split()[:2]):
        text = f"{home.public_key} is not the public half of {home.key}: the coordinator would admit another key."
        yield Finding("key", FAILED, text, f"Write it again: ssh-keygen -y -f '{home.key}' > '{home.public_key}'")
        return
    yield Finding("key", OK, f"{shown}; for this user alone.")
    yield from _check_secrets(home)


def _check_secrets(home: SiteHome) -> Iterator[Finding]:
    """What lies beside the private key, salts and keys of hashes, is for this user alone; folders of others hold other things."""
    beside = sorted(home.key.parent.iterdir()) if home.key.is_relative_to(home.folder) else ()
    for file in beside:
        if file.is_file() and file.suffix != ".pub":
            try:
                require_private(file, "read this secret of the site")
            except ConfigError as error:
                yield Finding("keys", FAILED, str(error))


def check_ca(home: SiteHome) -> Iterator[Finding]:
    """ca.crt is an authority's certificate and holds today."""
    authority = read_ca(home.ca)
    now, shown = datetime.now(UTC), f"{home.ca}, SHA-256 {certificate_fingerprint(authority)}"
    left = (authority.not_valid_after_utc - now).total_seconds() / 86400
    if left <= 0 or authority.not_valid_before_utc > now:
        word = "has expired" if left <= 0 else "is not valid yet"
        yield Finding("ca.crt", FAILED, f"{shown} {word}.", "Look at this machine's clock; then ask the coordinator for ca.crt.")
        return
    level, advice = (WARNING, "Ask the coordinator for the next ca.crt.") if left < SOON_DAYS else (OK, "")
    yield Finding("ca.crt", level, f"{shown}; {left:.0f} days left.", advice)


def check_disk(home: SiteHome) -> Iterator[Finding]:
    """Room, and the right to write, where logs and slices are kept."""
    for what, folder in (("state", home.state), ("cache", default_cache())):
        there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
        free = shutil.disk_usage(there).free
        check, text = f"disk: {what}", f"{folder}: {free / 1e9:.1f} GB free"
        if not os.access(there, os.W_OK | os.X_OK):
            fixed = bool(os.statvfs(there).f_flag & os.ST_RDONLY)
            why = f"{there} lies on a read-only file system" if fixed else f"this user may not write to {there}"
            advice = "Mount it for writing; Linux itself makes a disk read-only after errors (`dmesg`)." if fixed else OWNER
            yield Finding(check, FAILED, f"{text}, but {why}.", advice)
        elif free < LOW_BYTES:
            yield Finding(check, FAILED, f"{text}.", "Make room. On a full disk nothing leaves: the audit log cannot be written.")
        else:
            yield Finding(check, OK if free >= FEW_BYTES else WARNING, f"{text}.", "" if free >= FEW_BYTES else "Make room.")


def check_bundles(home: SiteHome) -> Iterator[Finding]:
    """Which bundles may run, and which wait to be read."""
    known = approved(home.folder)
    waiting = sorted(file.stem for file in (home.state / "refused").glob("*.fab") if file.stem not in known)
    advice = f"Read it ({home.state / 'refused'}), then: fedmri-site approve {quote(str(home.folder))} HASH" if waiting else ""
    refused = f" Refused, and kept to be read: {', '.join(name[:12] for name in waiting)}." if waiting else ""
    if not home.config.policy.approval:
        text = "policy.approval is false: any code that the coordinator sends runs here."
        yield Finding("bundles", WARNING, text, "Set approval = true under [policy], and approve what you have read.")
    elif not known:
        how = (
            f"Ask the coordinator for the bundle and its hash, read it, then: fedmri-site approve {quote(str(home.folder))} HASH"
        )
        yield Finding("bundles", WARNING, f"None is approved: nothing will run here.{refused}", advice or how)
    elif invited := sorted(file.stem for file in offered(home.folder).glob("*.fab") if file.stem not in known):
        text = f"{len(known)} approved, and that of the invitation is not: {', '.join(name[:12] for name in invited)}.{refused}"
        how = f"Read it, then: fedmri-site approve {quote(str(home.folder))} {invited[0]}"
        yield Finding("bundles", WARNING, text, how)
    else:
        yield Finding("bundles", WARNING if waiting else OK, f"{len(known)} approved.{refused}", advice)


def check_ledger(home: SiteHome) -> Iterator[Finding]:
    """The privacy ledger can be trusted, and there is a budget."""
    privacy = home.config.privacy
    path = home.folder / privacy.ledger
    ledger = read_ledger(path, home.key.parent)
    require_known(home.state / LOG_NAME, ledger, path)
    charges = len(ledger.entries)
    limit = f"budget epsilon {privacy.epsilon:g}" if privacy.epsilon else "no budget is set"
    salt = " Its salt, still in its first line, moves to the keys with the next private round." if ledger.salted else ""
    text = f"{path}: {charges} charges, {limit}.{salt}" if charges else f"Nothing was charged yet; {limit}."
    if privacy.epsilon:
        yield Finding("ledger", OK, text)
    else:
        yield Finding("ledger", NOTE, f"{text} {NO_BUDGET}")


def check_policy(home: SiteHome, config: RunConfig | None) -> Iterator[Finding]:
    """The planned run is of the kind that the hospital takes part in."""
    if config is None:
        return
    if home.config.policy.secure_only and not config.secure.enabled:
        text = "policy.secure_only is set, and the planned run is a plain one: the site would refuse it."
        yield Finding("policy", FAILED, text, "Ask the coordinator for a run with secure.enabled = true.")
        return
    if not config.privacy.enabled:
        require_open(home.name, home.config.privacy)
    yield Finding("policy", OK, "The planned run is of a kind that this site takes part in.")


def check_audit_log(home: SiteHome) -> Iterator[Finding]:
    """The audit log is as it was written: else nothing leaves."""
    log: Path = home.state / LOG_NAME
    if not log.exists():
        yield Finding("audit log", OK, "Not begun yet: nothing has come in or left.")
        return
    found = verify(log)
    yield Finding("audit log", OK, f"{found.lines} entries, sound, the last of {found.last}.")


def check_hours(home: SiteHome) -> Iterator[Finding]:
    """Whether the site would train at this minute."""
    hours, now = home.config.policy.hours, datetime.now().astimezone()
    if not hours:
        yield Finding("hours", OK, "The site trains at any time (policy.hours is empty).")
        return
    try:
        require_hours(home.config.policy, now)
    except PolicyError:
        yield Finding("hours", NOTE, f"Closed now ({now:%H:%M %Z}): policy.hours is {hours}.", "Other hospitals go on.")
        return
    yield Finding("hours", OK, f"Open now ({now:%H:%M %Z}): policy.hours is {hours}.")
