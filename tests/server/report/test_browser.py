"""The page in a real browser: nothing wider than the screen, light and dark differ, nothing is fetched."""

import os
import re
import runpy
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from server.report.compare_runs import compare_runs
from server.report.page.runs import render
from server.report.publish import render_html, write_report

samples = runpy.run_path(str(Path(__file__).with_name("report_samples.py")))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
LONG = "Universitätsklinikum" * 8
REPORTS = {"full": samples["full"], "long": lambda: samples["full"](LONG), "one": lambda: samples["bare"]([1])}
NETWORK = re.compile(r"https?://|url\(|@import|<link|<script|<iframe|srcset", re.IGNORECASE)
BROWSERS_OWN = re.compile(
    r"^https?://([a-z0-9-]+\.)*(google|googleapis|gvt1|gstatic)\.com[:/]"
)  # updates that chromium looks for
# Measures the page in a frame of the wanted width: headless windows are never narrower than 500 pixels.
PROBE = """<!doctype html><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>
<pre id="out"></pre><script>
onload = () => {{ const page = document.querySelector("iframe").contentDocument, width = page.documentElement.clientWidth;
const inside = e => e.closest(".scroll") || e.closest("svg");
const wide = [...page.querySelectorAll("body *")].filter(e => !inside(e) && e.getBoundingClientRect().right > width + 1);
const names = wide.map(e => e.tagName + "." + e.className);
document.getElementById("out").textContent = JSON.stringify([page.documentElement.scrollWidth, ...names]); }}
</script>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")]


def run_browser(folder, *flags):
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    # Its own session, so that a timeout takes its children along.
    browser = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    try:
        return browser.communicate(timeout=60)[0]
    finally:
        if browser.poll() is None:
            os.killpg(browser.pid, 9)
            browser.wait()


def first_pixel(png):
    """Red, green, blue of the top left pixel of an 8-bit PNG (no row filter changes that one)."""
    body = png.read_bytes()
    at, packed = 8, b""
    while at < len(body):
        (length,) = struct.unpack(">I", body[at : at + 4])
        if body[at + 4 : at + 8] == b"IDAT":
            packed += body[at + 8 : at + 8 + length]
        at += 12 + length
    return tuple(zlib.decompress(packed)[1:4])


def assert_fits(folder, page, width):
    """Nothing of the page is wider than the screen but what scrolls by itself."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    size = f"--window-size={max(width, 600) + 50},1000"
    flags = ["--allow-file-access-from-files", size, "--virtual-time-budget=3000", "--dump-dom"]
    found = re.search(r'<pre id="out">(.*?)</pre>', run_browser(folder, *flags, (folder / "probe.html").as_uri()))
    assert found is not None
    assert found[1] == f"[{width}]"


@pytest.mark.parametrize(("name", "width"), [("full", 400), ("full", 1400), ("long", 400), ("one", 400)])
def test_nothing_is_wider_than_the_screen(tmp_path, name, width):
    assert_fits(tmp_path, render_html(REPORTS[name]()), width)


def test_runs_side_by_side_fit_a_phone(tmp_path):
    for name, report in (("one", samples["full"]()), (LONG, samples["full"](LONG))):
        write_report(tmp_path / name, report)
    assert_fits(tmp_path, render(compare_runs([tmp_path / "one", tmp_path / LONG])), 400)


def test_nothing_is_fetched(tmp_path):
    """The page says nothing that a browser would fetch, and a browser that writes down its requests makes one: the page."""
    page = tmp_path / "page.html"
    page.write_text(render_html(samples["full"]()), encoding="utf-8")
    assert not NETWORK.search(page.read_text(encoding="utf-8"))
    log = tmp_path / "net.json"
    run_browser(tmp_path, f"--log-net-log={log}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri())
    started = re.findall(r'"url":"([^"]+)"', log.read_text(encoding="utf-8", errors="replace"))
    own = [url for url in started if not url.startswith(("chrome", "devtools", "about:", "data:"))]
    assert not [url for url in own if url.startswith("http") and not BROWSERS_OWN.search(url)]


def test_it_prints(tmp_path):
    (tmp_path / "page.html").write_text(render_html(samples["full"]()), encoding="utf-8")
    paper = tmp_path / "page.pdf"
    run_browser(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", (tmp_path / "page.html").as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 30


def test_light_and_dark(tmp_path):
    (tmp_path / "page.html").write_text(render_html(REPORTS["full"]()), encoding="utf-8")
    seen = {}
    for name, setting in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        flags = [f"--blink-settings=preferredColorScheme={setting}", "--window-size=1400,900", f"--screenshot={picture}"]
        run_browser(tmp_path, *flags, (tmp_path / "page.html").as_uri())
        seen[name] = first_pixel(picture)
    assert seen == {"light": (0xF4, 0xF5, 0xF3), "dark": (0x10, 0x15, 0x1A)}
