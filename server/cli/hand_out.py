"""`fedmri-server hand-out`: a finished run's model, signed, to the hospitals that took part."""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from common.cli import add_debug
from common.deployment.minisign import KEY
from common.errors import FedMRIError
from server.cli.release import add_passphrase, private_key
from server.deployment.acts import RELEASE, acting
from server.deployment.home import open_home

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_hand_out(verbs: Verbs) -> None:
    """Add the verb to the parser."""
    text = (
        "Sign a finished run's model and give it, with its card, to the hospitals that took part and are connected. Each keeps "
        "it where its policy says so (`keep_models`) and the signature fits. Again: to those that were away."
    )
    verb = verbs.add_parser("hand-out", help="give a run's model to the hospitals that took part", description=text)
    verb.add_argument("home", type=Path, metavar="HOME", help="the coordinator's folder")
    verb.add_argument("run", type=Path, metavar="RUN", help="folder of the finished run")
    verb.add_argument("--study", default="", metavar="NAME", help="what hospitals call it (default: the run folder's name)")
    verb.add_argument("--release", default="1.0.0", metavar="VERSION", help="of the model (default: 1.0.0)")
    verb.add_argument("--key", type=Path, metavar="KEY", help="release.key, which signs it (default: the one in HOME)")
    add_passphrase(verb)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_hand_out)


def _hand_out(arguments: argparse.Namespace) -> int:
    """0 once at least one hospital keeps the model."""
    from server.deployment.submit import Submission, follow, submit  # noqa: PLC0415  (torch: seconds)
    from server.release.hand_out import pack, packed_name  # noqa: PLC0415
    from server.run.hand_out import NAME  # noqa: PLC0415

    home = open_home(arguments.home)
    arguments.key = arguments.key or home.folder / KEY
    run = arguments.run.expanduser().resolve()
    folder = pack(run, arguments.study or None, arguments.release, private_key(arguments))
    out = home.runs / datetime.now().strftime("hand-out-%Y%m%d-%H%M%S")
    with acting(home, RELEASE, model=packed_name(folder), run=str(run)):
        taken = submit(home, Submission("demo", (), (), out, hand_out=folder))
    follow(home, taken, lambda _: None)
    return _show(taken.out / NAME, as_json=arguments.json)


def _show(file: Path, *, as_json: bool) -> int:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        lines = [f"{found['model']} is kept at {', '.join(found['kept'])}."]
        lines += [f"Not at {name}: {why}" for name, why in found["failures"].items()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedMRIError(f"{file}: cannot be read ({error}).") from error
    print(json.dumps(found) if as_json else "\n".join(lines))
    return 0
