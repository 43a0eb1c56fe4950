"""The section of a run that segments: what report.json has is on the page, and damage costs a line, not the page."""

from typing import Any

import pytest

from server.report.publish import render_html
from server.report.report import decode
from server.report.results import complete
from server.report.segmentation import decode_segmentation


def measured(dice: float, n: int = 12) -> dict[str, Any]:
    values = {"dice": dice, "jaccard": dice / (2 - dice), "hd95_mm": 7.25}
    spans = {name: {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n} for name, value in values.items()}
    return {"segmentation": {"n": n, "empty": 2, **spans}}


@pytest.fixture
def report() -> dict[str, Any]:
    external = measured(0.81)
    external["segmentation"] |= {"undrawn": 3, "left_out": ["class offsets (no class)", "conformal sets <b>"]}
    worse = {"value": 0.11, "low": 0.02, "high": 0.2}
    agreement = {"dice": 0.9, "jaccard": 0.82, "hd95_mm": None, "drawn_ml": 31.4, "proposed_ml": 0.0}
    return complete(
        {
            "external": external,
            "patients": [{"id": "sub-1", "modalities": ["t1"], "segmentation": agreement}, {"id": "sub-2", "segmentation": None}],
            "baselines": {
                "pooled": measured(0.83) | {"difference": worse},
                "local": {"du": measured(0.5) | {"difference": worse}},
            },
            "modality_subsets": {
                "t1": measured(0.31) | {"drop": {"value": 0.5, "low": 0.4, "high": 0.6}},
                "t1+flair": measured(0.81),
            },
            "provenance": {"external": "cs"},
        }
    )


def test_the_page_says_what_the_report_has(report: dict[str, Any]) -> None:
    page = render_html(report)
    assert (
        "On 12 patients of an external hospital, the federated model reaches a mean Dice of 0.81 (95% interval 0.76 to 0.86)."
        in page
    )
    assert "Beside it, with the same patients: Pooled 0.83, du alone 0.50." in page
    for words in ("Nothing was proposed for 2 patients", "3 patients had no drawn mask", "conformal sets &lt;b&gt;", "31.4"):
        assert words in page, words
    assert page.index("t1+flair") < page.index(">t1<")  # the fullest subset first
    for section in ("compared", "classes", "subsets", "patients"):
        assert f'id="{section}"' not in page


def test_damage_costs_a_line(report: dict[str, Any]) -> None:
    report["baselines"] = {"pooled": None, "local": [1], "monai_unet": {"segmentation": {"dice": "high"}}}
    report["patients"] = [None, {"id": 7, "segmentation": {"dice": float("inf")}}]
    report["external"]["segmentation"]["left_out"] = None
    found = decode_segmentation(report)
    assert found is not None
    assert [one.dice for one in found.patients] == [None, None]
    assert found.baselines["monai_unet"].dice.value is None
    assert "0.81" in render_html(report)


def test_other_runs_have_none() -> None:
    assert decode(complete({"external": {"n": 0}})).segmentation is None
