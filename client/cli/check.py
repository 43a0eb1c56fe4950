"""`fedmri-site check`: what is wrong with a site's data, in the terminal, as JSON, and as a page with pictures."""

import argparse
import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import add_debug, config_path
from common.config.run import RunConfig, load_config
from common.errors import ConfigError, DataError
from common.terminal.progress import long_work

if TYPE_CHECKING:
    from client.review.page import Page
    from common.data.check import SiteCheck
    from common.data.gate.finding import Finding

SPELLED_OUT = 5  # patients: a note of more is only counted in the terminal
STYLES = {"error": "red", "warning": "yellow", "note": "blue"}


def add_check(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb."""
    text = "Read every patient as training would, and say what is wrong or odd. Nothing leaves this machine."
    verb = verbs.add_parser("check", help="check the site's folder before joining", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder (BIDS), or its site.toml")
    verb.add_argument("--config", metavar="NAME|FILE", help="the run's configuration: its classes and modalities")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    verb.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with every patient's slices; it stays in the hospital"
    )
    verb.add_argument(
        "--quick", action="store_true", help="leave out what takes longest: modalities mixed up, the same scan twice, faces"
    )
    add_debug(verb)
    verb.set_defaults(handler=_check)


def _check(arguments: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits  # of products this small, threads cost more than they spare

    from client.privacy.ledger import NO_BUDGET  # nothing here needs torch, which takes seconds and memory to load
    from common.data.cases import read_site
    from common.data.check import check_site

    if not arguments.site.exists():
        raise ConfigError(f"{arguments.site}: no such file or folder. Name a site's folder or its site.toml.")
    if arguments.html:
        _require_writable(arguments.html)
    run = load_config(config_path(arguments.config)) if arguments.config else RunConfig()
    try:
        site = read_site(arguments.site, run)
    except (ConfigError, DataError) as error:
        _tell_refused(arguments, error)
        raise
    work = long_work(f"Checking {len(site.cases)} patients")
    with threadpool_limits(1), work as report, _page(run) if arguments.html else nullcontext() as page:
        result = check_site(
            site,
            run,
            quick=arguments.quick,
            progress=report,
            watch=page.add if page else None,
        )
        if page:
            page.write(arguments.html, result)
    if arguments.json:
        print(json.dumps(check_table(result), indent=2))
    else:
        _print(result, Console())
        if not site.config.privacy.epsilon:
            Console(highlight=False, markup=False).print(f"Note: {NO_BUDGET}")
        if arguments.html:
            Console().print(f"Page: {arguments.html}. It holds patients' images: it stays in the hospital.", markup=False)
    return 0 if result.usable else 1


def _tell_refused(arguments: argparse.Namespace, error: Exception) -> None:
    """What the command still owes where a site cannot be read at all: JSON, and that a page from before is not of today."""
    if arguments.json:
        print(json.dumps({"usable": False, "error": str(error)}, indent=2))
    if arguments.html and arguments.html.exists():
        said = f"{arguments.html} is of an earlier check and was not written anew."
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(said)


def _page(run: RunConfig) -> "Page":
    from client.review.page import Page

    return Page(run)


def _require_writable(page: Path) -> None:
    """Refuse, before any patient is read, a page that could not be written.

    Raises:
        ConfigError: it is a folder, its folder is not there, or this user may not write to it.
    """
    if page.is_dir():
        raise ConfigError(f"--html {page}: is a folder. Name a file, such as {page / 'check.html'}.")
    if not page.absolute().parent.is_dir() or not os.access(page.absolute().parent, os.W_OK):
        raise ConfigError(f"--html {page}: expected a file in a folder that is there and that you may write to. Name another.")


def check_table(result: "SiteCheck") -> dict[str, Any]:
    """The result as plain values, by stable keys: counts, `levels`, `codes`, `findings`, `used`, `usable`."""
    return {**asdict(result), "levels": result.levels, "codes": result.codes, "used": result.used, "usable": result.usable}


def _print(result: "SiteCheck", console: Console) -> None:
    """Counts, findings by code, then patient by patient, then the verdict."""
    counts = Table("what", "patients", title=Text(f"Site {result.site}"), title_justify="left")
    counts.columns[1].justify = "right"
    rows = {"all": result.patients, **result.modalities, "tumour mask": result.masks, **result.classes, **result.covariates}
    for name, count in rows.items():
        counts.add_row(Text(name), str(count), end_section=name in ("all", "tumour mask"))
    console.print(counts)
    if result.codes:
        console.print(_codes(result))
    for finding in _spelled_out(result):
        _print_finding(finding, console)
    verdict = "Usable" if result.usable else "Not fit for training yet"
    told = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in result.levels.items())
    said = f"{verdict}: {result.used} of {result.patients} patients. {told[0].upper()}{told[1:]}."
    console.print(said, style="green" if result.usable else "red", highlight=False, soft_wrap=True)


def _codes(result: "SiteCheck") -> Table:
    table = Table("code", "error", "warning", "note", "patients", title="What was found", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for code, found in result.codes.items():
        cells = [Text(str(found[level] or ""), style=style) for level, style in STYLES.items()]
        table.add_row(Text(code), *cells, str(found["patients"]))
    return table


def _spelled_out(result: "SiteCheck") -> "Iterable[Finding]":
    """All but notes that many patients share: those stand in the table of codes, in the JSON and on the page."""
    shared = {code for code, found in result.codes.items() if found["patients"] > SPELLED_OUT}
    return (one for one in result.findings if one.level != "note" or one.code not in shared)


def _print_finding(one: "Finding", console: Console) -> None:
    where = ", ".join(part for part in (one.patient, one.file) if part) or "site"
    line = Text(f"{one.level.value:8}", style=STYLES[one.level]) + Text(f"{where} [{one.code}]", style="bold")
    console.print(line, soft_wrap=True)
    console.print(f"        {one.found}; expected {one.expected}. {one.do}", markup=False, highlight=False, soft_wrap=True)
