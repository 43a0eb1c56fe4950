"""One snapshot a section: what a reader, or a screen reader, is told by the page of `report_samples.small`.

After a change that is meant: `FEDMRI_WRITE_SNAPSHOTS=1 python -m pytest tests/server/report/test_sections.py`, and read the diff.
"""

import os
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from server.report.publish import render_html

SNAPSHOTS = Path(__file__).with_name("snapshots")
SECTIONS = (
    "top classes compared roc decision calibration sets abstention subsets ood groups rounds stage "
    "personal privacy aggregation patients "
    "words provenance"
)
BREAKS = {"p", "h1", "h2", "h3", "tr", "li", "dt", "dd", "nav", "div", "figure", "section", "summary", "pre", "header"}
SKIPPED = {"style", "title"}


class Reader(HTMLParser):
    """The words of each section, a line a block or a row; cells are parted by a bar. No looks, no coordinates."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: dict[str, str] = {"top": ""}
        self.section, self.open = "top", ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.section = (found.get("id") or self.section) if tag == "section" else self.section
        self.open = tag
        before = "\n" if tag in BREAKS else " | " if tag in ("th", "td") else " "
        said = [f"[{found[key]}]" for key in ("aria-label", "alt", "title") if found.get(key)]
        self.words[self.section] = self.words.get(self.section, "") + before + "".join(said)

    def handle_data(self, data: str) -> None:
        if self.open not in SKIPPED:
            self.words[self.section] += data.replace("\n", " ")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def text(self, section: str) -> str:
        lines = (" ".join(line.split()) for line in self.words[section].splitlines())
        return "\n".join(line for line in lines if line.strip("| ")) + "\n"


@pytest.fixture(scope="module")
def page() -> Reader:
    return Reader(render_html(runpy.run_path(str(Path(__file__).with_name("report_samples.py")))["small"]()))


def test_every_section_has_its_snapshot(page: Reader) -> None:
    assert list(page.words) == SECTIONS.split()


@pytest.mark.parametrize("section", SECTIONS.split())
def test_a_section_says_what_it_said(section: str, page: Reader) -> None:
    file = SNAPSHOTS / f"{section}.txt"
    if os.environ.get("FEDMRI_WRITE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        file.write_text(page.text(section), encoding="utf-8")
    assert page.text(section) == file.read_text(encoding="utf-8")
