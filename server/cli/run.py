"""`fedmri-server run`: hand a run to the federation and follow it."""

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from shlex import quote
from typing import Any

from rich.console import Console

from common.cli import settings_of
from common.errors import ConfigError
from common.text import printable
from server.deployment.acts import RUN, acting
from server.deployment.home import Home, open_home
from server.deployment.submit import Submission, SubmittedRun, follow, submit
from server.events.words import round_line
from server.report.publish import HTML_NAME, write_page
from server.report.report import read_report


def run(arguments: argparse.Namespace) -> int:
    """The verb; 0 once the report is written, or with --detach once the run is taken."""
    home = open_home(arguments.home)
    if arguments.resume and arguments.out is None:
        raise ConfigError("--resume: name the interrupted run's folder with --out.")
    out = arguments.out or home.runs / datetime.now().strftime("%Y%m%d-%H%M%S")
    wanted = Submission(
        arguments.config, settings_of(arguments), tuple(arguments.external), out, arguments.resume, arguments.cache
    )
    if arguments.dry_run:
        return _dry_run(home, wanted, arguments.json)
    if arguments.json:
        raise ConfigError("--json goes with --dry-run. What a run gave: `fedmri-server report RUN`, and its report.json.")
    with acting(home, RUN, out=str(out), config=arguments.config, resume=arguments.resume):
        taken = submit(home, wanted)
    print(f"Run {taken.id} is on its way to {taken.out}; bundle {taken.bundle}", flush=True)
    if arguments.detach:
        print(f"When it has ended, `fedmri-server report {quote(str(taken.out))}` writes its {HTML_NAME}.")
    else:
        _follow(home, taken)
        print(f"Done. The report: {write_page(taken.out, read_report(taken.out))}")
    return 0


def _dry_run(home: Home, wanted: Submission, as_json: bool) -> int:
    from server.deployment.estimate import estimate, told  # noqa: PLC0415  what trains takes seconds to load

    found = estimate(home, wanted)
    print(json.dumps(found.as_json()) if as_json else told(found))
    return 0


def waiting_lines(status: Mapping[str, Any]) -> list[str]:
    """Why a run that waits for hospitals asks none of those that are connected: no round ends then, and none would tell it."""
    if status.get("state") != "waiting":
        return []
    sites = (status.get("sites") or {}).items()
    return [
        f"Waiting for hospitals. {name}: {printable(str(entry['reason']), 300)}" for name, entry in sites if entry.get("reason")
    ]


def _follow(home: Home, taken: SubmittedRun) -> None:
    """A line a round, and what the sites do in between."""
    console, told = Console(stderr=True, soft_wrap=True), set[str]()
    with console.status("Waiting for the hospitals") as spinner:

        def on_round(line: dict[str, Any]) -> None:
            console.print(round_line(line), markup=False, highlight=False)

        def on_status(status: dict[str, Any]) -> None:
            sites = status.get("sites") or {}
            words = ", ".join(f"{name} {entry.get('state', '')}" for name, entry in sites.items())
            for line in waiting_lines(status):
                if line not in told:
                    told.add(line)
                    console.print(line, markup=False, highlight=False)
            spinner.update(
                f"Round {status.get('round', 0)} of {status.get('rounds', '?')}: {words or 'waiting for the hospitals'}"
            )

        try:
            follow(home, taken, on_round, on_status)
        except KeyboardInterrupt:
            where = quote(str(home.folder))
            console.print(f"The run goes on. `fedmri-server status {where}` shows it, `fedmri-server cancel {where}` stops it.")
            console.print(
                f"When it has ended, `fedmri-server report {quote(str(taken.out))}` writes its {HTML_NAME}.", markup=False
            )
            raise
