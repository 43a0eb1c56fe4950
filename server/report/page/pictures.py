"""Pictures that a report may show, as data URIs: PNG files of RUN/evidence that its patients name, and nothing else."""

import base64
from pathlib import Path

from server.report.report import Report

FOLDER = "evidence"
PNG = b"\x89PNG\r\n\x1a\n"
ONE_AT_MOST, ALL_AT_MOST = 2_000_000, 30_000_000  # bytes: the page must open on a phone


def read_pictures(run: Path, report: Report) -> dict[str, str]:
    """File name -> data URI of the pictures that the patients name.

    A name with a folder in it, a file that is no PNG, not there or too large is left out, and so is what no longer fits the page.
    """
    found: dict[str, str] = {}
    room = ALL_AT_MOST
    for name in filter(None, (patient.picture for patient in report.patients)):
        content = _content(run / FOLDER, name) if name not in found else b""
        if content and len(content) <= room:
            found[name] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            room -= len(content)
    return found


def _content(folder: Path, name: str) -> bytes:
    if not name.isprintable() or Path(name).name != name:
        return b""
    path = folder / name
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > ONE_AT_MOST:
            return b""
        content = path.read_bytes()
    except (OSError, ValueError):
        return b""
    return content if content.startswith(PNG) else b""
