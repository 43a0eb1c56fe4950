"""`fedmri-site weights`: the frozen weights that are kept with the site, by hash."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from client.deployment.home import open_home
from common.cli import add_debug, output
from common.models.backbones.kept_weights import KeptWeights, keep_file, keep_shipped, kept_weights

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_weights(verbs: "Verbs") -> None:
    """Which are here, and how another comes here."""
    text = "The frozen weights that runs may ask for, kept in FOLDER/weights under their SHA-256. Nothing leaves this machine."
    parser = verbs.add_parser("weights", help="the frozen weights that are kept here: list them, add a file", description=text)
    what = parser.add_subparsers(metavar="WHAT", required=True)
    verb = what.add_parser("list", help="all of them, by hash")
    verb.set_defaults(handler=_list)
    _add_site(verb)
    verb = what.add_parser("add", help="keep a file that the coordinator names")
    verb.set_defaults(handler=_add)
    _add_site(verb)
    verb.add_argument("file", type=Path, metavar="FILE", help="a .safetensors or an official .pth file; it is copied")


def _add_site(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)


def _list(arguments: argparse.Namespace) -> int:
    folder = open_home(arguments.site).weights
    keep_shipped(folder)
    found = kept_weights(folder)
    if arguments.json:
        print(json.dumps([_table(one) for one in found], indent=2))
    else:
        for one in found:
            output().print(_line(one), style=None if one.sound else "red", markup=False, highlight=False, soft_wrap=True)
    return 0 if all(one.sound for one in found) else 1


def _add(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.site)
    kept = keep_file(home.weights, arguments.file)
    if arguments.json:
        print(json.dumps(_table(kept), indent=2))
    else:
        output().print(f"Kept: {kept.path}", markup=False, highlight=False, soft_wrap=True)
        output().print("Compare the hash with the coordinator's.", markup=False, highlight=False, soft_wrap=True)
    return 0


def _line(one: KeptWeights) -> str:
    size = one.path.stat().st_size / 1e6
    said = f"{one.sha256}  {size:.1f} MB  {one.shipped or 'added'}"
    return said if one.sound else f"{said}; DAMAGED, or not named by its hash: remove {one.path}, and add it anew"


def _table(one: KeptWeights) -> dict[str, str | bool]:
    return {"sha256": one.sha256, "file": str(one.path), "shipped": one.shipped, "sound": one.sound}
