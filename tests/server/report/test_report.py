"""The report: what it says at the edges, that names are never read as markup, that files are whole."""

import html
import json
import re
import runpy
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from common.errors import FedMRIError
from server.report.decode import Measure
from server.report.page.headline import headline
from server.report.page.svg import difference_axis, interval_bar, mcc_axis
from server.report.page.values import measure_text, number
from server.report.publish import UNPRINTABLE, render_html, write_page, write_report
from server.report.report import decode, read_report
from server.report.results import complete
from server.report.terminal import result_table

samples = runpy.run_path(str(Path(__file__).with_name("report_samples.py")))
whole, bare, full = samples["whole"], samples["bare"], samples["full"]

VOID = {"meta", "line", "circle", "rect", "br", "img"}
EDGES = {
    "whole": whole,
    "full": full,
    "no labels": lambda: bare([-1, -1, -1]),
    "no patients": lambda: bare([]),
    "one patient": lambda: bare([2]),
    "one class": lambda: bare([1, 1, 1]),
    "absent class": lambda: bare([0, 2, 0, 2]),
    "nothing at all": lambda: complete({}),
    "bare entries": lambda: complete(
        {
            "external": {"n": 3, "mcc": None},
            "patients": [{}],
            "rounds": [{}, {"round": 2, "failures": ["late"]}],
            "provenance": {"config": "no json"},
            "baselines": {"pooled": None, "linear_probe": {}, "local": None},
            "modality_subsets": {"t1": None},
        }
    ),
    "long names": lambda: whole("Universitätsklinikum-" * 12),
    "long names, full": lambda: full("Universitätsklinikum-" * 12),
}


class Page(HTMLParser):
    """Checks that tags nest, and keeps the text and the addresses."""

    def __init__(self, source):
        super().__init__()
        lists: Any = ([], [], [], [])
        self.open, self.text, self.tags, self.addresses = lists
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def words(self):
        return " ".join("".join(self.text).split())


@pytest.mark.parametrize("name", EDGES)
def test_page_table_and_json_at_the_edges(name, tmp_path):
    report = EDGES[name]()
    page = Page(render_html(report))
    assert "script" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"\b(nan|None|Undefined|inf)\b", page.words())
    Console(file=StringIO(), width=50).print(result_table(decode(report)))
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_the_page_says_the_result_and_its_neighbours():
    report = whole()
    words = Page(render_html(report)).words()
    mcc = report["external"]["mcc"]
    assert f"On 20 patients of an external hospital, the federated model reaches MCC {mcc['value']:.2f}" in words
    assert f"(95% interval {mcc['low']:.2f} to {mcc['high']:.2f})" in words


def test_the_headline_at_the_edges():
    assert "have no labels" in headline(decode(bare([-1, -1])))
    assert "On 1 patient of an external hospital, MCC is not defined" in headline(decode(bare([2])))
    assert "(all of one class)" in headline(decode(bare([1, 1])))
    assert "idh-wildtype" in Page(render_html(bare([0, 2, 0, 2]))).words().split("nothing is measured")[0]


def test_a_wrong_prediction_is_said_in_words():
    page = Page(render_html(whole()))
    report = whole()
    wrong = sum(p["label"] != int(np.argmax(p["probabilities"])) for p in report["patients"])
    assert page.words().count("✕ wrong") == wrong > 0


NAMES = st.text(min_size=1, max_size=40).filter(str.strip) | st.sampled_from(
    ["<script>alert(1)</script>", "</style><b>", '" onload="x', "{{ 7*7 }}", "[bold red]x[/]", "a\x00b", "\ud800", "&amp;", "]]>"]
)


@pytest.mark.slow
@given(NAMES)
@settings(max_examples=25, deadline=None)
def test_names_are_text_never_markup(name):
    plain = Page(render_html(full("harmless")))
    page = Page(render_html(full(name)))
    assert sorted(page.tags) == sorted(plain.tags)
    shown = html.unescape(html.escape(UNPRINTABLE.sub("\ufffd", name)))
    assert " ".join(shown.split()) in page.words()
    render_html(full(name)).encode("utf-8")


def test_terminal_table_shows_markup_as_text():
    out = StringIO()
    Console(file=out, width=140).print(result_table(decode(whole("[bold red]x[/]"))))
    assert "[bold red]x[/] alone" in out.getvalue()


def test_plain_values_only():
    report = complete(
        {
            "external": {"n": np.int64(2), "brier": np.float32("nan"), "mcc": {"value": np.inf}},
            "patients": [{"id": "a", "probabilities": np.array([0.5, np.nan]), "modalities": ("t1",)}],
            "provenance": {"data": Path("x")},
        }
    )
    assert report["external"] == {"n": 2, "brier": None, "mcc": {"value": None}}
    assert report["patients"][0] == {"id": "a", "probabilities": [0.5, None], "modalities": ["t1"]}
    assert report["provenance"] == {"data": "x"}
    assert report["calibration"] is None
    assert report["privacy"] == {}
    with pytest.raises(ValueError, match="got extrenal"):
        complete({"extrenal": {}})


def test_patients_by_class_name_and_by_index_are_the_same():
    by_index = whole()
    by_name = json.loads(json.dumps(by_index))
    names = list(by_index["external"]["support"])
    for patient in by_name["patients"]:
        patient["label"] = names[patient["label"]]
        patient["probabilities"] = dict(zip(names, patient["probabilities"], strict=True))
    assert render_html(by_name) == render_html(by_index)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no report.json"), ("{", "not valid JSON"), ("[]", "got list"), ('{"external": {}}', "patients, baselines")],
)
def test_reading_what_is_not_a_report(tmp_path, content, says):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(FedMRIError, match=says):
        read_report(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"external": {}}'])
def test_of_a_damaged_report_it_is_said_how_to_write_it_anew(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(FedMRIError, match=r"Copy report\.json anew") as refused:  # nothing else of the run is here
        read_report(tmp_path)
    assert "--resume" not in str(refused.value)
    (tmp_path / "checkpoints").mkdir()
    for name in ("run.json", "rounds.jsonl", "checkpoints/latest.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(FedMRIError, match=rf"Run: mv {tmp_path}/report.json {tmp_path}/report.damaged.json .* --resume"):
        read_report(tmp_path)


def test_report_json_comes_last(tmp_path, monkeypatch):
    """Where no page can be made of a changed report, report.json stays what it was."""
    monkeypatch.setattr("server.report.publish.read_pictures", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, whole())
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(FedMRIError, match=r"report\.html could not be written .* `fedmri-server report"):
        write_page(tmp_path, whole())


def test_numbers_for_reading():
    assert number(-0.123) == "\u22120.12"
    assert number(-0.001) == "0.00"
    assert number(None) == "\N{EN DASH}"
    assert measure_text(Measure(0.5, 0.25, 1.0)) == "0.50 (0.25 to 1.00)"


def test_forest_axis_holds_every_interval():
    assert mcc_axis([Measure(0.5, 0.1, 0.9)]).low == 0
    assert mcc_axis([Measure(0.1, -0.3, 0.2), Measure()]).low == -0.5
    assert [mcc_axis([Measure(-1.0)]).share(value) for value in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0.0, 0.5, 0.75, 1.0, 1.0]
    assert "not defined" in interval_bar(Measure(), mcc_axis([]), False)
    assert difference_axis([Measure(-0.3, -0.4, -0.1)]).ticks == (-0.5, -0.25, 0, 0.25, 0.5)
