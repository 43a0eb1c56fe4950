"""The page's sections: what each says, that it is absent without its numbers, and that no report breaks it."""

import base64
import copy
import json
import math
import re
import runpy
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from scipy.stats import binomtest

from server.report.calibration import decode_calibration
from server.report.decode import Measure, real, whole
from server.report.evaluation import decode_detectable, decode_evaluation
from server.report.page import (
    calibration,
    classes,
    comparison,
    conformal,
    decision,
    headline,
    ood,
    presence,
    rounds,
    stage,
    subsets,
)
from server.report.page.chart import value_axis
from server.report.page.page import template
from server.report.page.pictures import ONE_AT_MOST, read_pictures
from server.report.page.values import and_text, wilson
from server.report.publish import render_html, write_report
from server.report.report import decode
from server.report.results import complete
from server.report.round import decode_round
from tests.damage import made, tree

samples = runpy.run_path(str(Path(__file__).with_name("report_samples.py")))
full, whole_report, bare = samples["full"], samples["whole"], samples["bare"]
PNG = b"\x89PNG\r\n\x1a\n" + b"rest"


def sections(page):
    return re.findall(r'<section id="([a-z]+)"', page)


def test_every_section_of_a_full_report_is_there_and_linked():
    page = render_html(full())
    expected = "classes compared roc decision calibration sets abstention subsets ood groups rounds stage personal privacy"
    expected += " patients words provenance"
    assert sections(page) == expected.split()
    assert re.findall(r'<a href="#([a-z]+)"', page) == expected.split()


def test_old_reports_have_no_section_that_they_have_no_numbers_for():
    old = whole_report()
    for key in ("ood", "subgroups", "detectable"):
        del old[key]
    assert not {"roc", "sets", "abstention", "ood", "groups"} & set(sections(render_html(old)))
    assert sections(render_html(bare([-1, -1]))) == ["patients", "words"]


def test_without_offsets_the_decision_says_why_and_shows_no_before():
    report = full()
    told = report["decision"] | {"offsets": {}, "no_offsets": "No class offsets: why not.", "held_back": None, "disagreement": ""}
    section = decision.read(decode(report | {"decision": told}).decision)
    assert section is not None
    assert (section.alarm, section.said) == ("", ("No class offsets: why not.",))
    assert [(row.who, row.what) for row in section.rows] == [("external", "have it"), ("external", "named")]
    assert "most likely stays the same" in render_html(whole_report())  # a temperature alone


def test_a_stage_that_nobody_chose_says_why_and_has_no_table():
    section = stage.read(decode(full() | {"stage": {"asked": "auto", "kept": "round 8", "why": "Nobody."}}).stage)
    assert section is not None
    assert (section.said, section.rows, section.charts) == (("Kept: round 8 (evaluation.stage is auto).", "Nobody."), (), ())
    assert stage.read(decode(whole_report()).stage) is None


def test_the_forest_says_which_differences_chance_explains():
    assert comparison.verdict(Measure(0.2, 0.1, 0.3)) == comparison.BETTER
    assert comparison.verdict(Measure(-0.2, -0.3, -0.1)) == comparison.WORSE
    assert comparison.verdict(Measure(0.2, -0.1, 0.3)) == comparison.CHANCE
    assert comparison.verdict(Measure(0.2, 0.004, 0.3)) == comparison.CHANCE, "it is printed as 0.00"
    assert comparison.verdict(Measure(0.2)) == "no interval"


def test_a_roc_curve_needs_two_points():
    entry = {"roc": {"x": {"fpr": [0, 0.5, 1], "tpr": [0, 0.75, 1]}, "none": {"fpr": [0], "tpr": [0]}, "odd": None}}
    found = decode_evaluation(entry | {"auroc": {"per_class": {"x": 0.8}}})
    assert found.roc == {"x": ((0, 0), (0.5, 0.75), (1, 1)), "none": ((0, 0),), "odd": ()}
    (roc,) = classes.read_roc(found)
    assert (roc.name, roc.auroc) == ("x", 0.8)


def test_subsets_go_from_all_modalities_to_one():
    names = ("t1", "t2", "flair", "t1+t2", "t1+flair", "t2+flair", "t1+t2+flair")
    entry: dict[str, Any] = {
        name: {"mcc": {"value": 0.1 * len(name)}, "n": 9, "drop": {"value": 1 - 0.1 * len(name)}} for name in names
    }
    found = subsets.read(decode(complete({"modality_subsets": entry})).subsets)
    assert found.modalities == ("t1", "t2", "flair")
    assert [row.name for row in found.rows] == ["t1+t2+flair", "t1+t2", "t1+flair", "t2+flair", "t1", "t2", "flair"]
    assert [row.present for row in found.rows[:3]] == [(True, True, True), (True, True, False), (True, False, True)]
    assert [row.first for row in found.rows] == [False, True, False, False, True, False, False]
    assert found.rows[0].drop == Measure(), "the full set loses nothing against itself"
    mean = sum(0.1 * len(name) for name in names if name != "t1+t2+flair") / 6
    assert f"MCC is 1.10; its mean over the 6 incomplete subsets is {mean:.2f}" in found.said[0]
    assert "flair matters most: without it MCC falls by 0.50, which may be chance." in found.said[1]
    entry["t1+t2"]["drop"] |= {"low": 0.2, "high": 0.8}
    assert "falls by 0.50 (0.20 to 0.80)." in subsets.read(decode(complete({"modality_subsets": entry})).subsets).said[1]
    assert subsets.read({}) is None


def calibrated(entry):
    return calibration.read(decode_calibration(entry))


def test_reliability_shows_each_bin_with_its_count():
    low = {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None}
    high = {"low": 0.5, "high": 1.0, "n": 37, "confidence": 0.75, "accuracy": 0.5}
    entry = {"temperature": 1.5, "sites": ["a", "b"], "patients": None, "after": {"ece": 0.1, "reliability": [low, high, {}]}}
    found = calibrated(entry)
    (after,) = found.sides
    assert [each.n for each in after.bins] == [0, 37]
    assert ">37<" in after.counts
    assert (after.bins[1].confidence, after.bins[1].accuracy, after.ece) == (0.75, 0.5, 0.1)


def test_a_temperature_is_told_with_its_faults():
    assert calibration.TOO_SURE in calibrated({"temperature": 1.5, "sites": ["a", "b"], "patients": None}).said[0]
    assert calibration.UNCHANGED in calibrated({"temperature": 1.0, "sites": ["a"]}).said[0]
    assert calibration.NOT_SURE_ENOUGH in calibrated({"temperature": 0.5}).said[0]
    assert calibration.ROUGH in calibrated({"temperature": 9.5, "sites": ["a"], "patients": 2}).said[0]
    assert calibration.AT_THE_EDGE in calibrated({"temperature": 16.0, "sites": ["a"], "patients": 80}).said[0]
    assert calibration.AT_THE_EDGE not in calibrated({"temperature": 9.5, "sites": ["a"], "patients": 80}).said[0]
    assert calibration.ROUGH not in calibrated({"temperature": 1.5, "sites": ["a"], "patients": 80}).said[0]
    assert calibrated({"temperature": 1.0, "sites": []}).said == (calibration.NO_SITE,)
    assert calibrated({}) is None


def sets(entry):
    return conformal.read_sets(decode_calibration({"conformal": entry}).conformal)


def abstention(points):
    return conformal.read_abstention(decode_calibration({"abstention": points}).abstention)


def flagged(entry):
    return ood.read(decode(complete({"ood": entry})).ood)


def caution(entry):
    return headline.caution(decode_evaluation(entry))


def read_rounds(entries):
    return rounds.read(tuple(decode_round(entry) for entry in entries))


def test_prediction_sets_say_whether_the_promise_was_kept():
    def said(low, high):
        return sets({"coverage": 0.9, "observed": {"value": (low + high) / 2, "low": low, "high": high}}).said

    assert said(0.7, 0.85) == conformal.FEWER
    assert said(0.92, 0.99) == conformal.MORE
    assert said(0.85, 0.95) == conformal.AS_PROMISED
    everything = {"coverage": 0.9, "threshold": 1.0, "observed": {"value": 1.0, "low": 0.68, "high": 1.0}}
    assert sets(everything).said == conformal.ALL, "no promise was put to the test"
    sizes = sets({"sizes": {"10": 1, "2": 3, "1": 4}}).sizes
    assert [(size.classes, size.n, size.share) for size in sizes] == [("1", 4, 0.5), ("2", 3, 0.375), ("10", 1, 0.125)]


def test_abstention_says_the_risk_at_all_and_at_half():
    points = [{"coverage": c / 10, "risk": c / 20, "low": 0, "high": c / 10} for c in (10, 1, 5, 3)]
    found = abstention(points)
    assert "wrong in 50% (0% to 100%). Answering only for the surest 50%, it is wrong in 25% (0% to 50%)" in found.said
    assert abstention(points[:1]) is None
    assert abstention(None) is None


def test_strange_patients_are_held_against_the_stated_rate():
    assert ood.KEPT in flagged({"rate": 0.05, "flagged": 1, "of": 60})
    assert "1 of 60 patients was flagged" in flagged({"rate": 0.05, "flagged": 1, "of": 60})
    assert ood.BY_CHANCE in flagged({"rate": 0.05, "flagged": 4, "of": 60})
    assert ood.DIFFERENT in flagged({"rate": 0.05, "flagged": 30, "of": 60})
    few = flagged({"rate": 0.05, "threshold": 2.0, "flagged": 1, "of": 8, "held_back": 6})
    assert "1 of 8 patients was flagged" in few
    assert "Of the others it cannot be told: the hospitals held back 6 patients" in few
    assert flagged({}) == flagged({"flagged": 3, "of": 2}) == ""
    unknown = flagged({"rate": 0.05, "threshold": None, "flagged": 0, "of": 8})
    assert "Nobody could be flagged" in unknown
    assert ood.KEPT not in unknown


def test_a_model_with_one_answer_for_everybody_is_called_that():
    classes = {"a": 3, "b": 3, "c": 2}
    assert "named a for every patient" in caution({"n": 8, "support": classes, "confusion": [[3, 0, 0], [3, 0, 0], [2, 0, 0]]})
    assert "every patient" not in caution({"n": 8, "support": classes, "confusion": [[3, 0, 0], [2, 1, 0], [2, 0, 0]]})
    one = {"n": 3, "support": {"a": 3, "b": 0}, "confusion": [[3, 0], [0, 0]]}
    assert "every patient" not in caution(one), "of one class, MCC is not defined at all"


def test_the_smallest_difference_is_said_in_words():
    said = headline.detectable_text(decode_detectable({"n": 48, "difference": 0.27, "power": 0.8, "level": 0.05}))
    assert all(value in said for value in ("48", "0.27", "80%", "95%")), "a level of 0.05 makes 95% intervals"
    assert headline.detectable_text(decode_detectable({})) == ""


def test_presence_is_told_by_shape():
    read = read_rounds([samples["attended"](r, "north") for r in (1, 3, 5)])
    grid = dict(read.grid)
    assert list(grid) == ["hospital-east", "hospital-hill", "hospital-lake", "north"]
    kinds = re.findall(r'class="(fill|cross|pause)"', grid["north"])
    assert kinds == ["fill", "cross", "cross", "pause", "pause"], "a square, a cross of two lines, a pause of two"
    assert grid["hospital-hill"].count('class="fill"') == 3
    assert [words for _, words in read.legend] == [presence.LEGEND[k] for k in (presence.HERE, presence.FAILED, presence.PAUSED)]
    assert read_rounds([{"round": 1, "sites": 3}]).grid == ()
    many = read_rounds([samples["attended"](r, "north") for r in range(1, 1001)])
    assert many.grid[0][1].count("<rect") == presence.ROUNDS_AT_MOST


def test_the_rounds_show_attempts_and_by_which_rule_a_site_has_no_part():
    shown = template("rounds.html").render(
        view=SimpleNamespace(rounds=read_rounds([samples["attended"](3, "north"), {"round": 4, "failures": ["late"]}]))
    )
    cells = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "|", shown))
    assert "hospital-hill: no-reply, attempt 1, asked again" in cells
    assert "north: site" in cells
    assert re.search(r"\|3\|.*?\|2\|", cells)
    assert "unknown site: late" in cells  # of an earlier version, without rules
    assert "<b>hospital-hill</b>: no-reply: no reply within 9 s; the round was asked again (round 3)" in shown


def test_a_patient_has_set_flag_and_only_a_picture_that_may_be_shown(tmp_path):
    report = full()
    first, second, third = report["patients"][:3]
    first |= {"picture": "a.png", "label": 0, "prediction_set": ["idh-wildtype"], "ood": {"score": 9.0, "flagged": True}}
    second |= {"picture": "../report.json"}
    third |= {"picture": "gone.png"}
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "a.png").write_bytes(PNG)
    write_report(tmp_path, report)
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'src="([^"]*)"', page) == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    missed = sum(samples["CLASSES"][p["label"]] not in p["prediction_set"] for p in report["patients"])
    assert page.count("without the true class") == missed > 0
    assert page.count("⚠ out of distribution") == sum(p["ood"]["flagged"] for p in report["patients"])
    assert 'src="' not in render_html(report), "no picture without its file"


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/passwd", "text.png", "link.png", "big.png", "", ".", "a\x00.png", 7, "x" * 999]
)
def test_pictures_that_are_left_out(tmp_path, name):
    folder = tmp_path / "evidence"
    folder.mkdir()
    (tmp_path / "out.png").write_bytes(PNG)
    (folder / "text.png").write_bytes(b"text")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "big.png").write_bytes(PNG + bytes(ONE_AT_MOST))
    assert read_pictures(tmp_path, decode(complete({"patients": [{"picture": name}]}))) == {}


def test_numbers_that_are_none():
    assert [real(v) for v in (1, 0.5, True, "1", None, float("nan"), float("inf"), 10**400)] == [1.0, 0.5, *[None] * 6]
    assert [whole(v) for v in (3, 3.0, 2.5, -1, 10**30, None)] == [3, 3, None, None, None, None]
    assert and_text(()) == ""
    assert and_text(("a",)) == "a"
    assert and_text(("a", "b", "c")) == "a, b and c"


@pytest.mark.parametrize(("part", "of"), [(0, 1), (1, 1), (3, 48), (24, 48), (48, 48)])
def test_wilson_is_scipys(part, of):
    low, high = binomtest(part, of).proportion_ci(0.95, "wilson")
    found = wilson(part, of)
    assert found.value == part / of
    assert math.isclose(found.low, low, abs_tol=1e-9)
    assert math.isclose(found.high, high, abs_tol=1e-9)


@pytest.mark.parametrize("values", [[], [0.0], [4.1, 2.0], [-3.0, 5.0], [1e-9], [1e300, -1e300], [0.15]])
def test_an_axis_holds_zero_and_its_values_on_few_round_numbers(values):
    axis = value_axis(values)
    inside = [v for v in values if abs(v) <= 1e12]
    assert axis.low <= min([0, *inside])
    assert axis.high >= max([0, *inside])
    assert 2 <= len(axis.ticks) <= 7
    assert 0 in axis.ticks


SMALL = json.loads(json.dumps(samples["small"](), default=float))


def damaged(random: Random):
    """A report in which a few values, at any depth below the top, became something else."""
    report = copy.deepcopy(SMALL)
    for _ in range(random.randint(1, 6)):
        at, key = report, random.choice(list(report))
        while isinstance(at[key], dict | list) and at[key] and (at is report or random.random() < 0.8):
            at = at[key]
            key = random.choice(list(at)) if isinstance(at, dict) else random.randrange(len(at))
        if at is not report:
            at[key] = tree(random)
    return report


@pytest.mark.slow
@given(report=made(damaged))
@settings(max_examples=150, deadline=None)
def test_no_damaged_value_breaks_the_page(report):
    page = render_html(report)
    assert page.endswith("</html>")
    assert "<script" not in page
    page.encode("utf-8")


@pytest.mark.parametrize("fewest", [1000, 10**12])
def test_of_many_hospitals_the_first_collusions_are_told_and_where_hiding_ends(fewest):
    page = render_html(SMALL | {"aggregation": {"secure": True, "fewest": fewest, "needed": fewest // 2}})
    told = re.findall(r"With (\d+) of \d+ hospitals telling .*?update is (known|hidden among \d+)", page, re.DOTALL)
    hidden = [(str(k), f"hidden among {fewest - k}") for k in (1, 2, 3)]
    assert [(k, " ".join(what.split())) for k, what in told] == [*hidden, (str(fewest // 2), "known")]


def test_a_whole_small_report_is_not_damaged():
    assert len(sections(render_html(SMALL))) == 18


def test_clinical_covariates_with_and_without():
    report = full()
    own = report["external"]
    drop = {"value": 0.11, "low": -0.02, "high": 0.24}
    report["covariates"] = {"known": {"age": 45, "sex": 48}, "of": 48, "with": own, "without": {**own, "drop": drop}}
    page = render_html(report)
    assert "covariates" in sections(page)
    assert "covariates" not in sections(render_html(full()))
    told = re.search(r'<section id="covariates">.*?</section>', page, re.DOTALL)[0]
    assert "Of 48 external patients, known are age of 45 and sex of 48." in told
    assert "+0.11" in told
    damaged: tuple[dict[str, Any], ...] = ({"known": 3}, {"with": []}, {"known": {"age": "x"}, "without": 7})
    for wrong in damaged:
        render_html({**report, "covariates": wrong})
