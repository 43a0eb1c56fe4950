"""The verbs of `fedmri-site` for a machine that dies, or is replaced: backup, restore, move."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from client.deployment.archive import Archived, backup, restore
from client.deployment.home import open_home
from common.cli import add_debug, output

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

ONE = "The machine that the archive was made on must not run this site any more: two of it would spend one budget twice."
KEEP = "It holds the private key: keep it as you keep the key. Note the log's head elsewhere."


def add_archive(verbs: "Verbs") -> None:
    """Add them to the command."""
    text = "Put key, settings, privacy ledger, audit log and records into one archive. No patient's file is in it."
    verb = verbs.add_parser("backup", help="put the site's own files into one archive", description=text)
    _add(verb, "site", "FOLDER|site.toml", "the site's folder, or its site.toml")
    _add(verb, "file", "FILE.tar", "the archive; it must not be there yet")
    verb.set_defaults(handler=_backup)
    text = "As backup; afterwards the site in FOLDER does not start any more, for two of it would spend one budget twice."
    verb = verbs.add_parser("move", help="as backup, for a site that goes on at another machine", description=text)
    _add(verb, "site", "FOLDER|site.toml", "the site's folder, or its site.toml; it must be stopped")
    _add(verb, "file", "FILE.tar", "the archive; it must not be there yet")
    verb.set_defaults(handler=_move)
    text = "Make a site's folder of an archive. Refused where ledger and audit log of it contradict each other."
    verb = verbs.add_parser("restore", help="make a site's folder of an archive", description=text)
    _add(verb, "file", "FILE.tar", "of backup or move")
    _add(verb, "folder", "FOLDER", "is made; it must not be there")
    verb.add_argument("--log-head", metavar="HASH", default="", help="of the audit log, as you noted it last: no older archive")
    verb.set_defaults(handler=_restore)


def _add(verb: argparse.ArgumentParser, name: str, shown: str, text: str) -> None:
    verb.add_argument(name, type=Path, metavar=shown, help=text)
    if name == "file":
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
        add_debug(verb)


def _backup(arguments: argparse.Namespace) -> int:
    said = backup(open_home(arguments.site), arguments.file)
    return _told(arguments, said, f"Written: {arguments.file}. {KEEP}")


def _move(arguments: argparse.Namespace) -> int:
    said = backup(open_home(arguments.site), arguments.file, move=True)
    return _told(arguments, said, f"Written: {arguments.file}. {KEEP} The site in {arguments.site} does not start any more.")


def _restore(arguments: argparse.Namespace) -> int:
    said = restore(arguments.file, arguments.folder, head=arguments.log_head)
    noted = (
        ""
        if arguments.log_head
        else " Compare the log's head with the last one that was noted: an older archive forgets charges."
    )
    folder = quote(str(arguments.folder))
    text = f"Made {arguments.folder}. See data in its site.toml, then `fedmri-site doctor {folder}`. {ONE}{noted}"
    return _told(arguments, said, text)


def _told(arguments: argparse.Namespace, said: Archived, text: str) -> int:
    if arguments.json:
        print(json.dumps(asdict(said), indent=2))
        return 0
    facts = (
        f"{said.site}, {said.made}: {said.charges} charges in the ledger, {said.lines} lines in the audit log, head {said.head}"
    )
    for line in (facts, text):
        output().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0
