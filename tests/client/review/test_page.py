"""The page of `check --html`: whole, harmless whatever a folder is called, the gravest first, and at home on small screens."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from client.cli.main import main
from client.review.page import Page
from client.review.picture import EDGE, draw_patient
from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.check import check_site
from common.data.gate.patient import read_patient

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
FLAGS += ["--allow-file-access-from-files"]
HOSTILE = "sub-<script>alert(1)"
# Measured in a frame of the wanted width: headless windows are never narrower than 500 pixels.
PROBE = """<!doctype html><iframe src="check.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="out"></pre><script>
onload = () => {{ const page = document.querySelector("iframe").contentDocument, width = page.documentElement.clientWidth;
const wide = [...page.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.tagName);
const shown = () => [...page.querySelectorAll("article")].filter(e => e.getBoundingClientRect().height > 0).length;
const counts = ["all", "error", "warning", "note", "clean"].map(name => {{
  page.getElementById("show-" + name).checked = true; return shown(); }});
page.getElementById("show-all").checked = true;
const over = page.querySelector(".over"), before = over.getBoundingClientRect().height > 0;
page.getElementById("outline").checked = false;
const images = [...page.images].filter(i => i.naturalWidth > 0).length === page.images.length;
const after = over.getBoundingClientRect().height > 0;
document.getElementById("out").textContent = JSON.stringify([width, wide, counts, images, before, after]); }}
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Four patients: one whose FLAIR is cut off, one with an empty mask, one good, one with a hostile name."""
    root = tmp_path_factory.mktemp("site") / "bonn"
    generator = np.random.default_rng(0)
    for number, name in enumerate(("sub-good", "sub-empty", "sub-cut", HOSTILE)):
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        for suffix in ("T1w", "FLAIR"):
            voxels = np.zeros((40, 48, 6), np.float32)
            voxels[4:36, 4:44] = generator.uniform(50, 200, (32, 40, 6))
            nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 4, 6, 1])), folder / f"{name}_{suffix}.nii.gz")
        mask = np.zeros((40, 48, 6), np.uint8)
        mask[18:24, 20:27, 2:4] = number != 1
        nib.save(nib.Nifti1Image(mask, np.diag([4.0, 4, 6, 1])), folder / f"{name}_desc-tumour_mask.nii.gz")
    cut = root / "sub-cut" / "anat" / "sub-cut_FLAIR.nii.gz"
    cut.write_bytes(cut.read_bytes()[:400])
    return root


@pytest.fixture(scope="module")
def page(site, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "check.html"
    assert main(["check", str(site), "--html", str(file)]) == 0
    return file


def test_what_the_page_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "It stays in the hospital" in text[: text.index("<article")]
    assert re.findall(r'<article class="(\w+)"', text)[0] == "error"
    assert text.count("<article") == text.count("</article>") == 4
    assert "file-truncated" in text
    assert "mask-empty" in text
    assert HOSTILE not in text
    assert "sub-&lt;script&gt;alert(1)" in text
    assert not re.search(r"<script|https?://|url\(|<link|@import", text)
    assert "default-src 'none'" in text


def test_pictures_are_what_the_model_sees(site: Path) -> None:
    run = RunConfig()
    case = next(case for case in read_site(site, run).cases if case.id == "sub-good")
    (pictures,) = draw_patient(case, read_patient(case, run.data), run.data)
    assert [(row.name, bool(row.strip), row.why) for row in pictures.rows] == [
        ("t1", True, ""), ("t1c", False, "absent"), ("t2", False, "absent"), ("flair", True, ""),
    ]  # fmt: skip
    from io import BytesIO

    from PIL import Image

    from common.data.slices import slice_case

    sliced = slice_case(case, run.data)
    strip = np.asarray(Image.open(BytesIO(pictures.rows[0].strip)).convert("L"), np.float32)
    edge = min(run.data.size, EDGE)
    assert strip.shape == (edge, edge * run.data.slices)
    small = np.concatenate(list(sliced.images[:, 0].astype(np.float32)), axis=1)
    small = np.asarray(Image.fromarray(np.round(small * 255).astype(np.uint8)).resize(strip.shape[::-1], Image.Resampling.BOX))
    assert np.corrcoef(strip.ravel(), small.ravel().astype(np.float32))[0, 1] > 0.98
    outline = np.asarray(Image.open(BytesIO(pictures.outline)).convert("RGBA"))[:, :, 3] > 0
    assert 0 < outline.mean() < 0.1
    assert pictures.numbers == tuple(int(i) + 1 for i in sliced.indices)


def test_whole_slices_show_where_the_square_lies(site: Path) -> None:
    """A square of 64 mm about the mask's middle, and the mask, on slices of 160 x 192 mm from edge to edge."""
    run = RunConfig()
    run = replace(run, data=replace(run.data, field_of_view=64.0))
    case = next(case for case in read_site(site, run).cases if case.id == "sub-good")
    (pictures,) = draw_patient(case, read_patient(case, run.data), run.data)
    assert pictures.whole
    assert pictures.whole.name == "flair"
    first = np.asarray(Image.open(BytesIO(pictures.marked)).convert("RGBA"))[:, :, 3][:, :EDGE] > 0
    rows, columns = np.flatnonzero(first.any(1)), np.flatnonzero(first.any(0))
    pixel = 188 / EDGE  # mm: from the first voxel's middle to the last one's, on the longer side
    assert [np.ptp(found) * pixel for found in (rows, columns)] == pytest.approx([64, 64], abs=5)
    middle = [(EDGE - 1) / 2 - (found.min() + found.max()) / 2 for found in (rows, columns)]  # row 0 is anterior, column 0 right
    assert [offset * pixel for offset in middle] == pytest.approx([4 * (23 - 23.5), 4 * (20.5 - 19.5)], abs=3)
    strip = np.asarray(Image.open(BytesIO(pictures.whole.strip)).convert("L"))
    assert 0.4 < (strip > 20).mean() < 0.8  # the whole head, black around


def test_who_stays_out_is_shown_as_the_files_are(site: Path) -> None:
    run = RunConfig()
    case = next(case for case in read_site(site, run).cases if case.id == "sub-cut")
    rows = {row.name: row for row in draw_patient(case, None, run.data)[0].rows}
    assert rows["t1"].strip
    assert rows["flair"].why == "cannot be read"


def test_a_mask_that_keeps_a_patient_out_is_shown_white(site: Path) -> None:
    run = RunConfig()
    case = next(case for case in read_site(site, run).cases if case.id == "sub-good")
    (pictures,) = draw_patient(case, None, run.data)
    strips = {row.name: np.asarray(Image.open(BytesIO(row.strip)).convert("L")) for row in pictures.rows if row.strip}
    assert strips["mask"].max() > 240
    assert 0 < (strips["mask"] > 128).mean() < 0.2  # the tumour, on black


def test_an_error_leaves_the_old_page(site: Path, tmp_path: Path) -> None:
    old, run = tmp_path / "check.html", RunConfig()
    old.write_text("old")
    with Page(run) as made:
        made.add(read_site(site, run).cases[0], None)
        made.drawn[0] = made.drawn[0].__class__("nobody", 0, 1)
        with pytest.raises(AttributeError):
            made.write(old, None)  # type: ignore[arg-type]
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_pictures_wait_on_the_disk(site: Path) -> None:
    run = RunConfig()
    with Page(run) as made:
        check_site(read_site(site, run), run, watch=made.add)
        assert [one.start for one in made.drawn] == list(np.cumsum([0, *(one.length for one in made.drawn)])[:-1])
        assert not any(isinstance(value, bytes) for one in made.drawn for value in vars(one).values())


def test_json_has_stable_keys(site: Path, capsys) -> None:
    assert main(["check", str(site), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    keys = "site patients modalities masks classes findings covariates levels codes used usable"
    assert set(keys.split()) <= set(table)
    assert set(table["levels"]) == {"error", "warning", "note"}
    assert set(table["findings"][0]) == {"patient", "code", "level", "file", "found", "expected", "do"}
    assert sum(table["levels"].values()) == len(table["findings"])
    assert table["codes"]["file-truncated"] == {"error": 1, "warning": 0, "note": 0, "patients": 1}


def test_a_folder_is_no_page(site: Path, tmp_path: Path, capsys) -> None:
    assert main(["check", str(site), "--html", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def run_browser(folder: Path, *flags: str) -> str:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    browser = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    try:
        return browser.communicate(timeout=60)[0]
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    """Nothing is wider than the screen, every picture opens, the filters and the outline's switch work without a script."""
    shutil.copy(page, tmp_path / "check.html")
    (tmp_path / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    size = f"--window-size={max(width, 600) + 50},1000"
    told = run_browser(tmp_path, size, "--virtual-time-budget=4000", "--dump-dom", (tmp_path / "probe.html").as_uri())
    found = re.search(r'<pre id="out">(.*?)</pre>', told)
    assert found
    seen, wide, counts, images, before, after = json.loads(found[1])
    assert (seen, wide) == (width, [])
    assert counts[0] == 4 == sum(counts[1:])
    assert counts[1] == 1
    assert images
    assert (before, after) == (True, False)


def test_each_plane_and_field_of_view_has_its_strips(site: Path, tmp_path: Path) -> None:
    data = RunConfig().data
    data = replace(data, axes=("axial", "sagittal"), slices=2, size=64, field_of_view=(60.0, 112.0))
    case = next(case for case in read_site(site, RunConfig()).cases if case.id == "sub-good")
    drawn = draw_patient(case, read_patient(case, data), data)
    assert [one.plane for one in drawn] == ["axial, 60 mm", "axial, 112 mm", "sagittal, 60 mm", "sagittal, 112 mm"]
    assert [one.numbers for one in drawn[::2]] == [one.numbers for one in drawn[1::2]]
    strips = [np.asarray(Image.open(BytesIO(one.rows[0].strip)).convert("L")) for one in drawn]
    assert {strip.shape for strip in strips} == {(64, 128)}
    rims = [int((np.asarray(Image.open(BytesIO(one.outline)).convert("RGBA"))[:, :, 3] > 0).sum()) for one in drawn]
    assert rims[0] > rims[1] > 0  # the nearer, the longer
    assert rims[2] > rims[3] > 0
    (tmp_path / "run.toml").write_text('[data]\naxes = ["axial", "sagittal"]\nslices = 2\nsize = 64\nfield_of_view = [60, 112]\n')
    page = tmp_path / "check.html"
    assert main(["check", str(site), "--html", str(page), "--config", str(tmp_path / "run.toml")]) == 0
    text = page.read_text(encoding="utf-8")
    assert "sagittal: anterior is on the left, superior is up, 60 and 112 mm from edge to edge" in text
    assert text.count('<p class="soft">sagittal, 60 mm</p>') == 3  # patients who are used
    assert text.count('<div class="strips">') == text.count("<article") == 4
