"""`fedmri-server audit`: a hospital's privacy audit becomes a part of the report."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from common.cli import add_debug
from server.report.privacy_audit import add_audit as put
from server.report.privacy_audit import refutations
from server.report.publish import HTML_NAME


def add_audit(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the parser."""
    text = "Put the audit that a hospital made (`fedmri-site audit privacy --json`) and sent into a run's report."
    verb = verbs.add_parser("audit", help="put a hospital's privacy audit into the report", description=text)
    verb.add_argument("run", type=Path, metavar="RUN", help="folder of the finished run")
    verb.add_argument("site", metavar="SITE", help="the hospital's name in the report")
    verb.add_argument("file", type=Path, metavar="FILE", help="the JSON that it sent")
    verb.add_argument("--force", action="store_true", help="replace an audit that the report holds")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    entry = put(arguments.run, arguments.site, arguments.file, force=arguments.force)
    if arguments.json:
        print(json.dumps(entry, indent=2))
    else:
        claim = {"privacy": {arguments.site: {"audit": entry}}}
        verdict = next(iter(refutations(claim)), f"The audit of {arguments.site} passed.")
        where = f"It is in {arguments.run / HTML_NAME}."
        style = "" if entry["passed"] else "red"
        Console().print(f"{verdict} {where}", style=style, markup=False, highlight=False, soft_wrap=True)
    return 0 if entry["passed"] else 1
