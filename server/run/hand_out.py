"""The hand-out of a released model to the hospitals that took part in its run. Leaves RUN/hand-out.json."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common.config.run import RunConfig
from common.errors import FederationError
from common.files import write_atomic
from common.messages.code_version import code_hash
from common.messages.released_model import CONTENT, MANIFEST, SIGNATURE, SITES, read_manifest, require_files, write_hand_out
from common.messages.round import Task
from server.run.asking import ask
from server.run.ending import told_of_end
from server.strategy.progress import Progress
from server.strategy.site_selection import Presence

NAME = "hand-out.json"
NUMBER = 1  # of the round that a request names


def hand_out(grid: Grid, config: RunConfig, folder: Path, out: Path) -> dict[str, Any]:
    """Give the model to everybody who took part and is connected.

    Args:
        grid: Flower's, to send by.
        config: for how long to wait.
        folder: of the released model, as `server.release.hand_out` packs it.
        out: where hand-out.json goes; its presence marks a hand-out that reached somebody.

    Raises:
        FederationError: nobody is connected, nobody who took part keeps it, or the files are not as they were signed.
    """
    progress = Progress(out, 1)
    with told_of_end(progress):
        return _hand_out(grid, config, folder, out, progress)


def _hand_out(grid: Grid, config: RunConfig, folder: Path, out: Path, progress: Progress) -> dict[str, Any]:
    files = {name: (folder / name).read_bytes() for name in (MANIFEST, SIGNATURE, *CONTENT) if (folder / name).is_file()}
    manifest = read_manifest(files.get(MANIFEST, b""))
    require_files(manifest, files)
    sites = json.loads((folder / SITES).read_text(encoding="utf-8"))
    presence = Presence(replace(config.federation, min_sites=1), (), progress)
    presence.wait(grid, NUMBER)
    there = [address for address in presence.called(grid, NUMBER)[0] if address.name in sites]
    task = Task(NUMBER, config.to_json(), code_hash(), "", out.name)
    request = write_hand_out(task, files)
    asked = ask(grid, dict.fromkeys(there, request), NUMBER, config.federation.round_timeout, "model", progress)
    absent = sorted(set(sites) - {address.name for address in there})
    found: dict[str, Any] = {
        "model": f"{manifest.study}/{manifest.version}",
        "kept": sorted(asked.told),
        "failures": dict(sorted(asked.failures.items())) | dict.fromkeys(absent, "not connected"),
    }
    if not asked.told:
        said = "; ".join(f"{name}: {why}" for name, why in found["failures"].items())
        raise FederationError(f"No hospital keeps the model. {said}")
    write_atomic(out / NAME, json.dumps(found, indent=1).encode())
    return found


def folder_of(run_config: Mapping[str, Any]) -> Path | None:
    """The folder of the model that is to be handed out; None: the run is another one."""
    folder = str(run_config.get("hand_out", ""))
    return Path(folder) if folder else None
