"""Pictures that a report may show, as data URIs: PNG files of RUN/evidence that its patients name, and nothing else."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.report.page.values import listed, table

FOLDER = "evidence"
PNG = b"\x89PNG\r\n\x1a\n"
ONE_AT_MOST, ALL_AT_MOST = 2_000_000, 30_000_000  # bytes: the page must open on a phone


def read_pictures(run: Path, report: Mapping[str, Any]) -> dict[str, str]:
    """File name -> data URI of the pictures that the patients name.

    A name with a folder in it, a file that is no PNG, not there or too large is left out, and so is what no longer fits the page.
    """
    found: dict[str, str] = {}
    room = ALL_AT_MOST
    for patient in listed(report["patients"]):
        name = table(patient).get("picture")
        content = _content(run / FOLDER, name) if isinstance(name, str) and name not in found else b""
        if isinstance(name, str) and content and len(content) <= room:
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
