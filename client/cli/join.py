"""`fedmri-site join`: the first command of a hospital."""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.console import Console

from client.cli.approvals import print_comparison
from client.deployment.join import Joined, join
from common.cli import add_debug

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

WEIGHTS = {
    "hub": "from the architecture's hub, which the run fetches itself",
    "random": "none: drawn at random",
}


def add_join(verbs: "Verbs") -> None:
    """From an invitation to a folder."""
    text = (
        "Make this hospital's folder from the coordinator's invitation: settings, and a key that is made here and stays here. "
        "Shows what is trusted by it, and the one line to send back. Nothing leaves this machine, no code in it runs."
    )
    verb = verbs.add_parser("join", help="make this hospital's folder from an invitation", description=text)
    verb.add_argument("file", type=Path, metavar="FILE", help="the invitation")
    verb.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="the site's (default: its name, made here)")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the patients")
    verb.add_argument("--fingerprint", default="", metavar="TEXT", help="as the coordinator read it out: another one is refused")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_join)


def _join(arguments: argparse.Namespace) -> int:
    done = join(arguments.file, arguments.folder, data=arguments.data, told=arguments.fingerprint)
    if arguments.json:
        print(json.dumps(join_table(done), indent=2))
    else:
        _print(done, Console(soft_wrap=True, highlight=False, markup=False))
    return 0


def join_table(done: Joined) -> dict[str, Any]:
    """What `join --json` prints."""
    made, asked = done.made, done.invitation
    return {
        "site": made.home.name,
        "folder": str(made.home.folder),
        "server": asked.address,
        "invitation_fingerprint": done.fingerprint,
        "ca_fingerprint": made.ca_fingerprint,
        "key_fingerprint": made.key_fingerprint,
        "send_back": made.public_line,
        "bundle": asked.bundle_sha256,
        "bundle_text": str(done.text),
        "backbone": {**vars(asked.backbone), "here": done.weights_here},
    }


def _print(done: Joined, console: Console) -> None:
    """What was trusted, then what to do."""
    made, asked = done.made, done.invitation
    home = made.home.folder
    console.print(
        f"Site {made.home.name} of {asked.federation} is set up in {home}. What leaves it is for {made.home.toml} to say."
    )
    if made.unread:
        console.print(f"Not read: {made.unread}. Copy what it says of files, labels and patients into {made.home.toml}.")
    console.print("\nWhat you trust by it:")
    console.print(f"  the server      {asked.address}, and no other")
    console.print(f"  its authority   ca.crt, SHA-256 {made.ca_fingerprint}")
    console.print(f"  releases of     {asked.release_key or 'nobody: the coordinator has no key for them'}")
    console.print(f"  frozen weights  {_weights(done)}")
    console.print(f"  code            nothing yet: bundle {asked.bundle_sha256}")
    print_comparison(done.files, console)
    here = version("flwr")
    if here != asked.flower:
        console.print(f"The coordinator has Flower {asked.flower}, this machine {here}: install the same.", style="yellow")
    console.print("\n1. Send this one line to the coordinator (the private key stays here):\n")
    console.print(made.public_line)
    console.print("\n2. Ring the coordinator at a number that you know. They read out the first, you the second:")
    console.print(f"   this invitation   {done.fingerprint}")
    console.print(f"   this site's key   {made.key_fingerprint}")
    console.print(f"3. Read the code in {done.text}, then let it run here:")
    typed = quote(str(home))
    console.print(f'   fedmri-site approve {typed} {asked.bundle_sha256} --note "read by ..."')
    console.print(f"4. fedmri-site doctor {typed} --config {asked.backbone.config}")
    console.print(f"5. fedmri-site start {typed} --background")


def _weights(done: Joined) -> str:
    planned = done.invitation.backbone
    if not planned.sha256:
        return f"{WEIGHTS.get(planned.weights, planned.weights)} (configuration {planned.config})"
    where = "here" if done.weights_here else "not here yet; `doctor` says what to do"
    return f"{planned.sha256}, {where} (configuration {planned.config})"
