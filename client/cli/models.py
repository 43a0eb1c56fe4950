"""`fedmri-site models`: the released models that came to this hospital."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from client.deployment.home import open_home
from client.gate.kept_models import FOLDER_NAME, KeptModel, kept_models
from common.cli import add_debug, output
from common.messages.released_model import CARD

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_models(verbs: "Verbs") -> None:
    """Which are here, and are they as they were signed?"""
    text = (
        "The released models that came from the coordinator after a run, each held against its signature. Nothing leaves this "
        "machine. Exit code 1 where one does not fit."
    )
    verb = verbs.add_parser("models", help="the released models that came here", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_models)


def _models(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.site).folder
    found = kept_models(home)
    if arguments.json:
        print(json.dumps([asdict(one) | {"folder": str(one.folder)} for one in found], indent=2))
    elif found:
        output().print(_table(found))
        output().print(f"Cards: {home / FOLDER_NAME}/STUDY/VERSION/{CARD}", markup=False, highlight=False, soft_wrap=True)
    else:
        output().print("No released model has come here yet.")
    return 1 if any(one.trouble for one in found) else 0


def _table(found: list[KeptModel]) -> Table:
    table = Table("model", "released", "signature")
    for one in found:
        said = Text(f"REFUSED: {one.trouble}", style="red") if one.trouble else Text("fits", style="green")
        table.add_row(Text(one.name), Text(one.released), said)
    return table
