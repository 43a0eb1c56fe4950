"""The verbs of `fedmri-site` for a deployed site: init, doctor, start, status, stop."""

import argparse
import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cli.doctor import add_doctor
from client.cli.join import add_join
from client.deployment.home import SiteHome, open_home
from client.deployment.provision import Provisioned, provision, unread_lines
from common.cli import add_debug, output
from common.deployment.supervisor import end

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_verbs(verbs: "Verbs") -> None:
    """Add them to the command."""
    _add_init(verbs)
    add_join(verbs)
    add_doctor(verbs)
    _add_start(verbs)
    _add_status(verbs)
    _add_stop(verbs)


def _add_init(verbs: "Verbs") -> None:
    text = "Make a hospital's folder ready to join: settings, a key that is made here and stays here, the coordinator's ca.crt."
    verb = verbs.add_parser("init", help="make this hospital's folder, key and settings", description=text)
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="made where it is absent")
    verb.add_argument("--server", metavar="HOST:PORT", required=True, help="the coordinator's address")
    verb.add_argument("--ca", type=Path, metavar="FILE", required=True, help="the coordinator's ca.crt")
    verb.add_argument("--name", default="", help="the site's name (default: the folder's)")
    verb.add_argument("--data", type=Path, metavar="DIR", help="folder of the patients (default: beside site.toml)")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_init)


def _init(arguments: argparse.Namespace) -> int:
    made = provision(arguments.folder, arguments.server, arguments.ca, name=arguments.name, data=arguments.data)
    if arguments.json:
        print(json.dumps(init_table(made), indent=2))
    else:
        _say(*_init_lines(made))
    return 0


def init_table(made: Provisioned) -> dict[str, str]:
    """What `init --json` prints."""
    return {
        "site": made.home.name,
        "settings": str(made.home.toml),
        "settings_done": made.toml_done,
        "public_key_file": str(made.home.public_key),
        "public_key": made.public_line,
        "fingerprint": made.key_fingerprint,
        "ca_fingerprint": made.ca_fingerprint,
    }


def _init_lines(made: Provisioned) -> list[str]:
    home = made.home
    done = {
        "made": f"Settings: {home.toml}. Read it: it says what may leave this hospital. As it is, nothing but the adapters may.",
        "connection added": f"Settings: {home.toml} was there; [connection] was added at its end, nothing else was changed.",
    }
    return [
        f"Site {home.name} is set up.",
        done.get(made.toml_done, f"Settings: {home.toml} was there and was left as it was."),
        *unread_lines(made),
        "",
        f"1. Send this file to the coordinator: {home.public_key}",
        f"   {made.public_line}",
        "2. Ring the coordinator at a number that you know, and compare both by reading them aloud:",
        f"   this site's key   {made.key_fingerprint}",
        f"   ca.crt, SHA-256   {made.ca_fingerprint}",
        f"3. fedmri-site doctor {quote(str(home.folder))}",
        "",
        f"The private key {home.key} never leaves this machine.",
    ]


def _add_start(verbs: "Verbs") -> None:
    text = "Connect this hospital and keep it connected, until it is stopped. It connects outwards only."
    verb = verbs.add_parser("start", help="connect this hospital, and keep it connected", description=text)
    _add_home(verb)
    verb.add_argument("--background", action="store_true", help="return when it runs (systemd: not needed)")
    add_debug(verb)
    verb.set_defaults(handler=_start)


def _start(arguments: argparse.Namespace) -> int:
    from client.deployment.service import start, start_in_background

    home = open_home(arguments.site)
    if arguments.background:
        pid = start_in_background(home)
        _say(
            f"Site {home.name} runs (process {pid}). `fedmri-site status {quote(str(home.folder))}` says more. Logs: {home.logs}"
        )
        return 0
    _say(
        f"Site {home.name} runs until it is stopped (Ctrl-C, or `fedmri-site stop {quote(str(home.folder))}`). Logs: {home.logs}"
    )
    start(home)
    _say("Stopped.")
    return 0


def _add_status(verbs: "Verbs") -> None:
    text = "What runs here, whether the coordinator is reached, what came in and went out last. Exit code 0: connected."
    verb = verbs.add_parser("status", help="does it run, is it connected", description=text)
    _add_home(verb)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_status)


def _status(arguments: argparse.Namespace) -> int:
    from client.deployment.status import site_status

    told = site_status(open_home(arguments.site))
    if arguments.json:
        print(json.dumps(told, indent=2))
    else:
        _print_status(told, output())
    return 0 if told["connected"] else 1


def _print_status(told: dict[str, Any], console: Console) -> None:
    console.print(Text(told["sentence"], style="green" if told["connected"] else "yellow"), soft_wrap=True)
    if told["programs"]:
        table = Table("program", "state", "since", "restarts", "ended last because")
        for name, life in told["programs"].items():
            cells = (life.get("state"), life.get("since"), life.get("restarts"), life.get("reason") or "")
            table.add_row(Text(name), *(Text(str(cell)) for cell in cells))
        console.print(table)
    words = {"asked": "request", "answered": "answer", "refused": "refusal"}
    for event, when in told["last"].items():
        console.print(f"Last {words[event]}: {when or 'none yet'}", markup=False, highlight=False)
    console.print(f"Logs: {told['logs']}", markup=False, highlight=False, soft_wrap=True)


def _add_stop(verbs: "Verbs") -> None:
    text = "End the site's connection and all its processes. A round in work is lost; the coordinator goes on without this site."
    verb = verbs.add_parser("stop", help="end it", description=text)
    _add_home(verb)
    add_debug(verb)
    verb.set_defaults(handler=_stop)


def _stop(arguments: argparse.Namespace) -> int:
    home: SiteHome = open_home(arguments.site)
    _say(f"Site {home.name} is stopped." if end(home.state) else f"Site {home.name} was not running.")
    return 0


def _add_home(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("site", type=Path, metavar="FOLDER", help="the site's folder (made by init), or its site.toml")


def _say(*lines: str) -> None:
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(line, markup=False, highlight=False)
