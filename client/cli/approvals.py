"""The verbs of `fedmri-site` about what runs and what left: approve, audit verify."""

import argparse
import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from client.deployment.join import offered
from client.gate.approvals import LIST_NAME, Comparison, approve, approved, check_hash, compare, withdraw
from client.gate.audit_log import LOG_NAME, verify
from common.cli import CONFIGS, add_debug
from common.config.site import read_site_config
from common.errors import ConfigError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
SHOWN = 20


def add_approve(verbs: "Verbs") -> None:
    """Which bundles may run here."""
    text = (
        "Let a bundle of code run at this site, after reading it. Refused bundles are kept as state/refused/HASH.fab, zip "
        "archives; what they hold is shown beside the FedMRI that is installed here."
    )
    verb = verbs.add_parser("approve", help="let a bundle of code run here, after reading it", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("hash", nargs="?", metavar="HASH|FILE", help="SHA-256 of the bundle, or the bundle; without it: the list")
    verb.add_argument("--note", default="", help="who read it, and why it may run")
    verb.add_argument("--withdraw", action="store_true", help="let it run no more")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_approve)


def add_audit_verify(audits: "Verbs") -> None:
    """Is the audit log as it was written?"""
    text = "Follow the hash chain of the site's audit log: what came in, left, or was refused. Nothing leaves this machine."
    verb = audits.add_parser("verify", help="the site's audit log", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_verify)


def _approve(arguments: argparse.Namespace) -> int:
    home, state = _places(arguments.site)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if arguments.hash is None:
        known = approved(home)
        waiting = [file for file in sorted((state / "refused").glob("*.fab")) if file.stem not in known]
        invited = [file for file in sorted(offered(home).glob("*.fab")) if file.stem not in known]
        if arguments.json:
            names = {"approved": known, "refused": [file.stem for file in waiting], "invited": [file.stem for file in invited]}
            print(json.dumps(names, indent=2))
        else:
            _print_list(known, waiting, invited, console)
        return 0
    sha256, bundle = _bundle(arguments.hash, (offered(home), state / "refused"))
    found = compare(bundle, CONFIGS.parent) if bundle is not None and not arguments.withdraw else None
    changed = withdraw(home, sha256) if arguments.withdraw else approve(home, sha256, arguments.note)
    if arguments.json:
        files = {key: list(names) for key, names in asdict(found).items()} if found else None
        print(json.dumps({"hash": sha256, "approved": not arguments.withdraw, "changed": changed, "files": files}, indent=2))
        return 0
    if found:
        print_comparison(found, console)
    elif not arguments.withdraw:
        console.print("The bundle itself is not here: only its hash was written down.", style="yellow")
    if arguments.withdraw and not changed:
        console.print(
            f"Bundle {sha256[:12]} was not approved: nothing is withdrawn. Approved: {_shown(approved(home))}.", style="yellow"
        )
        return 0
    word = "may not run here any more" if arguments.withdraw else "may run here"
    before = (
        ""
        if changed
        else " (as before; your note is not written down: the first one stays)"
        if arguments.note
        else " (as before)"
    )
    console.print(f"Bundle {sha256[:12]} {word}{before}: {home / LIST_NAME}", style="green")
    return 0


def _shown(known: dict[str, str]) -> str:
    return ", ".join(sha256[:12] for sha256 in known) or "none"


def _verify(arguments: argparse.Namespace) -> int:
    _, state = _places(arguments.site)
    found = verify(state / LOG_NAME)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2))
        return 0
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table("event", "entries", title="Audit log", title_justify="left")
    for event, count in sorted(found.events.items()):
        table.add_row(event, str(count))
    console.print(table)
    if found.torn:
        console.print(f"A crash cut the last line short ({found.torn} bytes); what it was about never left.", style="yellow")
    console.print(f"Sound: {found.lines} entries from {found.first} to {found.last}.", style="green")
    console.print(f"Last hash: {found.head}")
    return 0


def _places(path: Path) -> tuple[Path, Path]:
    """The site's home and its state folder."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Name a site's folder or its site.toml.")
    home = path.parent if path.suffix == ".toml" else path
    return home, home / Path(read_site_config(path).connection.state).expanduser()


def _bundle(text: str, kept: tuple[Path, ...]) -> tuple[str, bytes | None]:
    """A bundle by its file, or by its hash: then its bytes are there only if an invitation held it, or it was refused before."""
    path = Path(text)
    if path.is_file():
        bundle = path.read_bytes()
        if not zipfile.is_zipfile(path):
            raise ConfigError(f"{path}: no bundle (a zip archive).")
        return hashlib.sha256(bundle).hexdigest(), bundle
    files = [folder / f"{check_hash(text, 'HASH')}.fab" for folder in kept]
    return text, next((file.read_bytes() for file in files if file.is_file() and zipfile.is_zipfile(file)), None)


def _print_list(known: dict[str, str], waiting: list[Path], invited: list[Path], console: Console) -> None:
    for sha256, note in known.items():
        console.print(f"approved  {sha256}  {note}")
    for word, files in (("refused", waiting), ("invited", invited)):
        for file in files:
            console.print(f"{word}   {file.stem}  {file}", style="yellow")
    if not known and not waiting and not invited:
        console.print("No bundle is approved, and none has been refused yet.")


def print_comparison(found: Comparison, console: Console) -> None:
    """How the bundle differs from the code that is installed here."""
    same, different, new = len(found.same), len(found.different), len(found.new)
    console.print(f"{same} files are the same as those installed here, {different} differ, {new} are new.")
    for word, names in (("differs", found.different), ("new", found.new)):
        for name in names[:SHOWN]:
            console.print(f"  {word}: {name}", style="yellow")
        if len(names) > SHOWN:
            console.print(f"  and {len(names) - SHOWN} more")
