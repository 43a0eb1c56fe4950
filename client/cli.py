"""`fedmri-site`: what a hospital runs on its own machine."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from common.cli import add_debug, config_path, run_command
from common.config import DataConfig, load_config
from common.data.cases import read_site
from common.data.check import Finding, SiteCheck, check_site
from common.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 fine, 1 problems found, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="fedmri-site", description="FedMRI at the hospital.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_check(verbs)
    return run_command(parser, argv)


def _add_check(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Open every volume of a site and say what is wrong or odd. Nothing leaves this machine."
    verb = verbs.add_parser("check", help="check the site's folder before joining", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder (BIDS), or its site.toml")
    verb.add_argument("--config", metavar="NAME|FILE", help="the run's configuration: its classes and modalities")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_check)


def _check(arguments: argparse.Namespace) -> int:
    if not arguments.site.exists():
        raise ConfigError(f"{arguments.site}: no such file or folder. Name a site's folder or its site.toml.")
    data = load_config(config_path(arguments.config)).data if arguments.config else DataConfig()
    site = read_site(arguments.site, data)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"Checking {len(site.cases)} patients", total=len(site.cases))
        result = check_site(site, data, progress=lambda done, _: bar.update(task, completed=done))
    if arguments.json:
        print(json.dumps(asdict(result), indent=2))
    else:
        _print_check(result, Console())
    return 1 if result.problems else 0


def _print_check(result: SiteCheck, console: Console) -> None:
    """Counts, then one row a finding, then the verdict."""
    counts = Table("what", "patients", title=Text(f"Site {result.site}"), title_justify="left")
    counts.columns[1].justify = "right"
    rows = {"all": result.patients, **result.modalities, "tumour mask": result.masks, **result.classes}
    for name, count in rows.items():
        counts.add_row(Text(name), str(count), end_section=name in ("all", "tumour mask"))
    console.print(counts)
    for title, findings in (("Problems", result.problems), ("Warnings", result.warnings)):
        if findings:
            console.print(_findings(title, findings))
    for note in result.notes:
        console.print(f"Note: {note}.", markup=False, highlight=False)
    problems, warnings = len(result.problems), len(result.warnings)
    verdict = "Fine" if not problems else "Not fit for training yet"
    console.print(f"{verdict}. Problems: {problems}. Warnings: {warnings}.", style="red" if problems else "green")


def _findings(title: str, findings: tuple[Finding, ...]) -> Table:
    table = Table("patient", "file", "what", title=title, title_justify="left")
    for column in table.columns:
        column.overflow = "fold"  # a file's name is of no use without its end
    for finding in findings:
        table.add_row(Text(finding.patient), Text(finding.file), Text(finding.sentence))
    return table


if __name__ == "__main__":
    sys.exit(main())
