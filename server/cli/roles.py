"""The verbs of `fedmri-server` about who did what and what happened, and who may look on: `log`, `observer`, `observe`."""

import argparse
import json
from pathlib import Path
from shlex import quote
from typing import TypeAlias

from common.cli import add_debug
from server.deployment.acts import acts_of
from server.deployment.home import open_home
from server.events.log import parse, read_lines
from server.events.words import said
from server.release.run_name import run_name

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_roles(verbs: Verbs) -> None:
    """Add the verbs to the parser."""
    text = (
        "The coordinator's own log: who invited, admitted, revoked, ran, stopped, released what, and that no line was changed. "
        "With --run: all that happened in a run. That needs no HOME: whoever may read the run folder may look, an observer too."
    )
    verb = verbs.add_parser("log", help="who did what here, or what happened in a run", description=text)
    of = verb.add_mutually_exclusive_group(required=True)
    of.add_argument("home", type=Path, nargs="?", metavar="HOME", help="the coordinator's folder")
    of.add_argument("--run", type=Path, metavar="RUN", help="a run folder: each request, reply, refusal, attempt, pause")
    _finish(verb, _log)
    text = "Make a folder by which another user of this machine may list hospitals and runs, and do nothing else."
    verb = verbs.add_parser("observer", help="let another user look on", description=text)
    verb.add_argument("home", type=Path, metavar="HOME", help="the coordinator's folder")
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="made; give it to that user")
    _finish(verb, _observer)
    verb = verbs.add_parser("observe", help="what an observer may see", description="Hospitals and runs.")
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="that `observer` has made")
    _finish(verb, _observe)


def _finish(verb: argparse.ArgumentParser, handler: object) -> None:
    verb.add_argument("--json", action="store_true", help="print JSON")
    add_debug(verb)
    verb.set_defaults(handler=handler)


def _log(arguments: argparse.Namespace) -> int:
    if arguments.run is not None:
        return _events(arguments.run, as_json=arguments.json)
    log = acts_of(open_home(arguments.home))
    found = log.verify()
    entries = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()[: found.lines]]
    if arguments.json:
        print(json.dumps({"head": found.head, "entries": entries}, indent=2))
        return 0
    for entry in entries:
        facts = ", ".join(f"{key} {entry[key]}" for key in sorted(entry.keys() - {"event", "time", "who", "hash"}))
        print(f"{entry['time']}  {entry['who']}  {entry['event']}  {facts}".rstrip())
    print(f"Sound: {found.lines} entries. Last hash, to be kept elsewhere: {found.head}")
    return 0


def _events(run: Path, *, as_json: bool) -> int:
    """What happened in a run, one line each; the lines as they are with --json."""
    lines, name = read_lines(run), run_name(run)
    if name and not as_json:
        print(f"Run {name} at the hospitals (audit logs, `fedmri-site withdraw`)")
    for text in lines:
        if as_json:
            print(text)
            continue
        try:
            time, event = parse(text)
            print(f"{time}  {said(event)}")
        except ValueError as error:
            print(f"{text[:120]}  (no event of this version: {error})")
    return 0


def _observer(arguments: argparse.Namespace) -> int:
    from server.deployment.observe import make_observer  # noqa: PLC0415

    make_observer(open_home(arguments.home), arguments.folder)
    if arguments.json:
        print(json.dumps({"folder": str(arguments.folder)}))
        return 0
    print(f"Give {arguments.folder} to the user who may look on (chown -R): fedmri-server observe {quote(str(arguments.folder))}")
    return 0


def _observe(arguments: argparse.Namespace) -> int:
    from server.deployment.observe import observe  # noqa: PLC0415

    seen = observe(arguments.folder)
    sites = {node.name: node.status for node in seen.nodes}
    if arguments.json:
        print(json.dumps({"sites": sites, "runs": dict(seen.runs)}, indent=2))
        return 0
    for kind, rows in (("site", sites.items()), ("run", seen.runs)):
        for name, status in rows:
            print(f"{kind}  {name}  {status}")
    return 0
