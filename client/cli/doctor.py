"""`fedmri-site doctor`: one row a check, and an exit code that says whether the site can take part."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from client.doctor.check_result import FAILED, NOTE, OK, WARNING, Finding
from common.cli import add_debug, config_path
from common.config.run import load_config

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
STYLES = {OK: "green", NOTE: "blue", WARNING: "yellow", FAILED: "red"}


def add_doctor(verbs: "Verbs") -> None:
    """What keeps this site from taking part?"""
    text = (
        "Look at everything that a round needs: settings, keys, the way to the coordinator, clock, disk, GPU, weights, patients, "
        "approved bundles, ledger, and one step of training for trial. Nothing is changed; nothing leaves but a GET of /health. "
        "Exit code 1 where something FAILED."
    )
    verb = verbs.add_parser("doctor", help="find what keeps this site from taking part", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER", help="the site's folder (made by init), or its site.toml")
    verb.add_argument("--config", metavar="NAME|FILE", help="the planned run: its weights, classes, and a step of its training")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    verb.add_argument("--quick", action="store_true", help="leave out the patients' volumes and the training")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from client.doctor.run import examine

    config = load_config(config_path(arguments.config), tuple(arguments.settings)) if arguments.config else None
    console, findings = Console(soft_wrap=True), []
    with Console(stderr=True).status("Looking"):
        for finding in examine(arguments.site, config, quick=arguments.quick):
            findings.append(finding)
            if not arguments.json:
                _print(finding, console)
    failed = sum(finding.level == FAILED for finding in findings)
    if arguments.json:
        print(json.dumps({"passed": not failed, "checks": [asdict(finding) for finding in findings]}, indent=2))
    else:
        warnings = sum(finding.level == WARNING for finding in findings)
        verdict = "Not fit to take part yet" if failed else "Fit to take part"
        console.print(f"{verdict}. FAILED: {failed}. Warnings: {warnings}.", style="red" if failed else "green", highlight=False)
    return 1 if failed else 0


def _print(finding: Finding, console: Console) -> None:
    """A row, and under it what to do."""
    level = Text(f"{finding.level:<8}", style=STYLES[finding.level])
    console.print(Text.assemble(level, f"{finding.check:<12}", finding.sentence))
    if finding.advice:
        console.print(Text(f"{'':20}{finding.advice}", style="dim"))
