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

from server.report import render_html

samples = runpy.run_path(str(Path(__file__).with_name("report_samples.py")))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
REPORTS = {
    "whole": samples["whole"],
    "long": lambda: samples["whole"]("Universitätsklinikum" * 8),
    "one": lambda: samples["bare"]([1]),
}
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


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_wider_than_the_screen(tmp_path, name, width):
    (tmp_path / "page.html").write_text(render_html(REPORTS[name]()), encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    flags = [
        "--allow-file-access-from-files",
        f"--window-size={max(width, 600) + 50},1000",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    page = run_browser(tmp_path, *flags, (tmp_path / "probe.html").as_uri())
    found = re.search(r'<pre id="out">(.*?)</pre>', page)
    assert found is not None
    assert found[1] == f"[{width}]"


def test_light_and_dark(tmp_path):
    (tmp_path / "page.html").write_text(render_html(REPORTS["whole"]()), encoding="utf-8")
    seen = {}
    for name, setting in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        flags = [f"--blink-settings=preferredColorScheme={setting}", "--window-size=1400,900", f"--screenshot={picture}"]
        run_browser(tmp_path, *flags, (tmp_path / "page.html").as_uri())
        seen[name] = first_pixel(picture)
    assert seen == {"light": (0xF4, 0xF5, 0xF3), "dark": (0x10, 0x15, 0x1A)}
