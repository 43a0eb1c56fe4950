"""The card: whole in one file, harmless whatever a folder is called, and at home on a telephone."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from client.predict.card import render_card
from client.predict.prediction import Answer, answer_table
from common.config.run import config_from_table
from common.data.cases import UNLABELLED, Case
from common.data.planes import Plane
from common.data.slices import Sliced
from common.evaluation.calibration.calibration import Calibration

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files"]
# Measured in a frame of the wanted width: headless windows are never narrower than 500 pixels.
PROBE = """<!doctype html><iframe src="card.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="out"></pre><script>
onload = () => {{ const page = document.querySelector("iframe").contentDocument, width = page.documentElement.clientWidth;
const right = e => e.getBoundingClientRect().right;
const wide = [...page.querySelectorAll("body *")].filter(e => right(e) > width + 1).map(e => e.tagName);
const images = [...page.images], shown = images.filter(i => i.naturalWidth > 0 && i.getBoundingClientRect().width > 40);
document.getElementById("out").textContent = JSON.stringify([width, wide, shown.length, images.length]); }}
</script>"""


def made_up(name="sub-1", calibration=None, **changes) -> Answer:
    config = config_from_table({"data": {"size": 64, "modalities": ["t1", "t1c", "flair"]}})
    rng = np.random.default_rng(0)
    files = dict.fromkeys(("t1", "t2", "flair"), None)
    plane = Plane("axial", np.arange(5) * 4 + 61, (56.0, 56.0), 155)
    sliced = Sliced(rng.random((5, 3, 64, 64)).astype(np.float16), np.array([True, False, True]), (plane,), False)
    places = rng.normal(0, 1, (5, 3, 8, 8)).astype(np.float32)
    case = Case(name, files, None, UNLABELLED, None, None)
    whole = Answer(
        case, sliced, config, calibration, np.array([0.2, 0.7, 0.1]), None, None, np.array([0.1, np.nan, -0.3]), places
    )
    return replace(whole, **changes)


CALIBRATION = Calibration(1.5, 0.9, 0.6, 0.05, 2.0, 30, ("a", "b"))


def test_what_the_card_says():
    page = render_card(made_up())
    for words in ("idh-wildtype, 70.0%", "not calibrated", "the model does not know", "slice 62", "+10.0", "\N{MINUS SIGN}30.0"):
        assert words in page
    assert page.count("Not a medical device") == 2
    assert page.count("data:image/png;base64,") == 20  # 5 slices of 2 modalities, each with its evidence
    assert not re.search(r"<script|https?://|url\(", page)
    told = made_up(calibration=CALIBRATION, in_set=np.array([True, True, False]), ood_score=3.0)
    page = render_card(told)
    assert "do not rely on this answer" in page
    assert "idh-mutant-astrocytoma, idh-wildtype" in page
    assert told.flagged is True
    assert replace(told, ood_score=2.0).flagged is False
    assert replace(told, calibration=replace(CALIBRATION, ood_threshold=np.inf)).flagged is None
    bare = render_card(made_up(by_modality=None, by_place=None))
    assert "Evidence" not in bare
    assert bare.count("data:image/png;base64,") == 10


def test_a_folders_name_is_text_and_no_markup():
    page = render_card(made_up('<img src=x onerror="alert(1)">'))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen_and_every_picture_shows(tmp_path, width):
    card = made_up("Universitätsklinikum" * 5, CALIBRATION, in_set=np.ones(3, bool), ood_score=1.0)
    (tmp_path / "card.html").write_text(render_card(card), encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={max(width, 600) + 50},1000"]
    command += ["--virtual-time-budget=3000", "--dump-dom", (tmp_path / "probe.html").as_uri()]
    # Its own session, so that a timeout takes its children along.
    browser = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    try:
        page = browser.communicate(timeout=60)[0]
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
    found = json.loads(re.search(r'<pre id="out">(.*?)</pre>', page)[1])
    assert found[1:] == [[], 20, 20]
    assert abs(found[0] - width) <= 20  # less a scroll bar


def test_several_planes_and_fields_of_view_are_named():
    """In the card, in JSON and in words; `strongest` says which image it means."""
    config = config_from_table({"data": {"axes": ["axial", "sagittal"], "slices": 2, "field_of_view": [80, 112], "size": 64}})
    planes = (Plane("axial", np.array([9, 13]), (1.0, 1.0), 20), Plane("sagittal", np.array([70, 74]), (1.0, 1.0), 155))
    images, places = np.zeros((8, 4, 64, 64), np.float16), np.zeros((8, 4, 8, 8), np.float32)
    places[5, 3, 2, 1] = 1.0
    sliced = Sliced(images, np.array([False, False, False, True]), planes, True)
    one = made_up(sliced=sliced, config=config, by_place=places, by_modality=np.array([np.nan, np.nan, np.nan, 0.2]))
    told = answer_table(one)
    assert told["slices"]["numbers"] == [10, 14, 10, 14, 71, 75, 71, 75]
    assert told["slices"]["axes"] == ["axial"] * 4 + ["sagittal"] * 4
    assert told["slices"]["fields_of_view"] == [80.0, 80.0, 112.0, 112.0] * 2
    assert told["slices"]["of_axis"] == {"axial": 20, "sagittal": 155}
    first = told["evidence"]["place"]["strongest"][0]
    where = {"slice": 75, "axis": "sagittal", "field_of_view": 80.0, "modality": "flair", "row": 3, "column": 2, "logit": 1.0}
    assert first == where
    assert one.why_slices.startswith(
        "10, 14 of 20 (from below); sagittal 71, 75 of 155 (from the patient's left); each of 80 and 112 mm, through the tumour"
    )
    page = render_card(one)
    for words in ("axial slice 14, 80 mm", "sagittal slice 71, 112 mm", "80 and 112 mm", "anterior is on the left"):
        assert words in page
