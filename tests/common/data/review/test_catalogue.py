"""The table of codes: each once, and in the documentation as in the code."""

import re
from pathlib import Path

from common.data.review.catalogue import ALL_KINDS, table

DOCS = Path(__file__).resolve().parents[4] / "docs" / "hospital.md"


def test_codes_are_stable_words_and_each_is_one_kind() -> None:
    codes = [kind.code for kind in ALL_KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for code in codes)


def test_every_kind_of_the_code_is_in_the_table() -> None:
    """A `Kind` that stands in no KINDS would be found, and never be explained."""
    written: set[str] = set()
    for file in (DOCS.parents[1] / "common" / "data").rglob("*.py"):
        written |= set(re.findall(r'= Kind\(\s*"([^"]+)"', file.read_text(encoding="utf-8")))
    assert written == {kind.code for kind in ALL_KINDS}


def test_the_documentation_has_the_table_of_the_code() -> None:
    begin, end = "<!-- codes: common/data/review/catalogue.py -->\n", "\n<!-- end of codes -->"
    text = DOCS.read_text(encoding="utf-8")
    assert text[text.index(begin) + len(begin) : text.index(end)] == table()
