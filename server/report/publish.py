"""report.html, for people: rendered of report.json by the installed commands, since how a page looks needs no approval."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import FedMRIError
from common.files import write_atomic
from common.run_folder import REPORT_NAME
from server.report.page.page import render
from server.report.page.pictures import read_pictures
from server.report.report import Report, decode
from server.report.results import plain, write_results

HTML_NAME = "report.html"
# What HTML and terminals do not show, and lone halves of a surrogate pair, which no encoding has.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def write_report(run: Path, report: Mapping[str, Any]) -> None:
    """Write a changed report, page and results; report.json comes last: where no page can be made, it stays what it was."""
    write_page(run, report)
    write_results(run, report)


def write_page(run: Path, report: Mapping[str, Any]) -> Path:
    """Write RUN/report.html.

    Args:
        run: the run folder, where the pictures lie.
        report: what its report.json holds.

    Returns:
        The page.

    Raises:
        FedMRIError: it cannot be written; the run's results are safe.
    """
    page = run / HTML_NAME
    try:
        write_atomic(page, render_run(run, report).encode("utf-8"))
    except OSError as error:
        raise FedMRIError(
            f"{page} could not be written ({error.strerror or error}). Mend that, then `fedmri-server report {run}`: the results "
            f"stand in {REPORT_NAME}."
        ) from error
    return page


def render_run(run: Path, report: Mapping[str, Any]) -> str:
    """The page with the pictures that lie in the run folder."""
    return _render(found := decode(plain(report)), read_pictures(run, found))


def render_html(report: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The report as one self-contained HTML page: no script, no network, light and dark, screen and paper.

    Args:
        report: what report.json holds.
        pictures: file name -> data URI of the pictures that patients name (`server.report.page.pictures`).
    """
    return _render(decode(plain(report)), pictures or {})


def _render(report: Report, pictures: Mapping[str, str]) -> str:
    return UNPRINTABLE.sub("\ufffd", render(report, pictures))
