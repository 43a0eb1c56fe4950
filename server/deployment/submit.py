"""A run at a real federation: handed to the SuperLink with `flwr run`, followed until it ends, judged by status and report."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO, Any

from common.cli import CONFIGS, config_path
from common.config.run import load_config
from common.deployment.flower_cli import NAME, error_sentence, flwr
from common.errors import ConfigError, FederationError
from common.files import locked, write_atomic
from common.messages.code_version import code_hash
from common.models.backbones.weights import WITHOUT_FILE, find_weights
from common.run_folder import CHECKPOINTS
from server.deployment.bundle import CHECKOUT, build_bundle
from server.deployment.health import superlink_serves
from server.deployment.home import Home
from server.deployment.registry import agreed_patients
from server.deployment.run_status import LAST_NAME, is_held, read_run_status
from server.deployment.superlink_nodes import connect
from server.run.ending import ERROR_NAME
from server.run.hand_out import NAME as HAND_OUT_NAME
from server.run.plan import RunPlan, read_plan, require_folder
from server.run.resume import require_free, require_same_run
from server.run.round_lines import OnRound, RoundFollower, read_rounds
from server.run.survey import NAME as SURVEY_NAME

POLL_SECONDS = 0.5
STATUS_SECONDS = 15.0
ENDING_SECONDS = 120.0  # between Flower's word that a run is over and what the ServerApp leaves, whichever comes first
SILENT_SECONDS = 600.0  # without a word from the SuperLink
OVER, UNKNOWN = "finished", "unknown"
SUBMIT_LOCK = "submit.lock"

OnStatus = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Submission:
    """What the coordinator asks for."""

    config: str  # name or file of a run configuration
    settings: tuple[str, ...]  # key=value changes of it
    external: tuple[Path, ...]  # folders of the held-out hospitals, side by side
    out: Path  # the run folder
    resume: bool = False
    cache: Path | None = None
    hand_out: Path | None = None  # folder of a released model that goes to the hospitals; nobody is external, nothing trains
    survey: bool = False  # asks the hospitals what they have; nobody is external, and nothing trains


@dataclass(frozen=True)
class SubmittedRun:
    """A run that Flower has taken on."""

    id: str
    out: Path
    bundle: str  # SHA-256
    told: int  # rounds that were there before
    result: str = "report.json"  # the file whose presence marks success


def submit(home: Home, wanted: Submission) -> SubmittedRun:
    """Hand the run to the SuperLink; returns as soon as it is taken.

    Raises:
        ConfigError: a wrong configuration or external folder, or nothing to resume; nothing was started.
        WeightsError: the frozen weights are not on this machine.
        FederationError: the service does not run, another run is on, the run folder is used, or Flower refused.
    """
    run_config = _run_config(wanted) | {"agreed": json.dumps(agreed_patients(home), sort_keys=True)}
    out = Path(run_config["out"])
    if not superlink_serves(home):
        raise FederationError(f"The service does not answer. Start it with `fedmri-server start {quote(str(home.folder))}`.")
    if wanted.resume and not wanted.survey and wanted.hand_out is None:
        require_same_run(read_plan(run_config, out))
    with _submitting(home):
        return _submit(home, run_config, out, _result(wanted))


def checked_plan(home: Home, wanted: Submission) -> RunPlan:
    """The run as the server would read it; nothing is started or changed.

    Raises:
        ConfigError, WeightsError, FederationError: as `submit`, before it asks Flower.
    """
    run_config = _run_config(wanted) | {"agreed": json.dumps(agreed_patients(home), sort_keys=True)}
    return read_plan(run_config, Path(run_config["out"]))


def _result(wanted: Submission) -> str:
    """The file whose presence marks success."""
    return SURVEY_NAME if wanted.survey else HAND_OUT_NAME if wanted.hand_out else "report.json"


def _submit(home: Home, run_config: dict[str, Any], out: Path, result: str) -> SubmittedRun:
    """See `submit`; nobody else submits meanwhile."""
    _require_free(home)
    require_free(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / ERROR_NAME).unlink(missing_ok=True)
    told = len(read_rounds(out))
    bundle = build_bundle(CHECKOUT)
    with connect(home) as nodes:
        number = nodes.start_run(bundle.content, run_config)
    run = SubmittedRun(number, out, bundle.sha256, told, result)
    write_atomic(home.state / LAST_NAME, json.dumps({"id": run.id, "out": str(out), "bundle": run.bundle}).encode())
    return run


def follow(home: Home, run: SubmittedRun, on_round: OnRound, on_status: OnStatus = lambda status: None) -> None:
    """Wait for the run's end; the run goes on when this is interrupted.

    Args:
        home: the coordinator's folder.
        run: from `submit`.
        on_round: called with each line of rounds.jsonl as it comes.
        on_status: called with status.json now and then.

    Raises:
        FederationError: the run failed; says why.
    """
    rounds, asked, reported = RoundFollower(run.out, on_round, run.told), time.monotonic(), 0.0
    heard, over, word = asked, 0.0, ""
    while True:
        rounds.follow()
        on_status(read_run_status(run.out))
        ended = any((run.out / name).is_file() for name in (ERROR_NAME, run.result))
        if time.monotonic() - asked >= (1.0 if ended else STATUS_SECONDS):
            asked, status = time.monotonic(), _status_patiently(home, run)
            if status == UNKNOWN:
                raise FederationError(_failed(home, run, "unknown to Flower, whose database was lost"))
            heard = asked if status else heard
            if asked - heard > SILENT_SECONDS:
                raise FederationError(_failed(home, run, "the service does not answer"))
            if status.startswith(OVER):
                word, over = status, over or time.monotonic()
            if word and not _still_ending(run, over):
                rounds.follow()
                _judge(home, run, word)
                return
        reported = reported or (time.monotonic() if ended else 0.0)
        if reported and time.monotonic() - reported > ENDING_SECONDS:
            raise FederationError(f"The server is done, but Flower did not end the run; see {home.log_of('superexec')}.")
        time.sleep(POLL_SECONDS)


def _still_ending(run: SubmittedRun, over: float) -> bool:
    """Whether its ServerApp may still say why: Flower calls it failed up to a minute before the ServerApp hears of it."""
    silent = not any((run.out / name).is_file() for name in (ERROR_NAME, run.result))
    return silent and is_held(run.out) and time.monotonic() - over < ENDING_SECONDS


def cancel(home: Home) -> str | None:
    """Stop the run that is on; what it has trained stays in its folder and can be resumed.

    Returns:
        Its id, or None where none is on.
    """
    ids = _running(home)
    for number in ids:
        flwr(home, ["stop", number, NAME])
    return ids[0] if ids else None


def _run_config(wanted: Submission) -> dict[str, Any]:
    """The keys of `[tool.flwr.app.config]`, checked before anything starts."""
    source = config_path(wanted.config)
    weights = load_config(source, wanted.settings).model.weights
    folders = [folder.expanduser().resolve() for folder in wanted.external]
    for folder in folders:
        if not folder.is_dir() or "+" in folder.name:
            raise ConfigError(
                f"--external {folder}: expected the folder of a hospital that is held out, without '+' in its name."
            )
    trains = not wanted.survey and wanted.hand_out is None
    if trains and (not folders or len({folder.parent for folder in folders}) != 1):
        raise ConfigError("--external: expected folders of held-out hospitals that lie side by side in one folder.")
    out = wanted.out.expanduser().resolve()
    require_folder(out, resume=wanted.resume)
    return {
        "config": wanted.config if source.parent == CONFIGS else str(source.resolve()),
        "set": json.dumps(list(wanted.settings)),
        "data": str(folders[0].parent) if folders else "",
        "external": "+".join(folder.name for folder in folders),
        "out": str(out),
        "code": code_hash(),
        "cache": str(wanted.cache.expanduser().resolve()) if wanted.cache else "",
        "sites": "nodes",
        "weights": "" if not trains or weights in WITHOUT_FILE else str(find_weights(weights).resolve()),
        "resume": wanted.resume,
        "survey": wanted.survey,
        "hand_out": str(wanted.hand_out or ""),
    }


def _submitting(home: Home) -> IO[bytes]:
    """Of two who submit at once, one: the other would find no run yet, and start a second one."""
    try:
        return locked(home.state / SUBMIT_LOCK, wait=False)
    except BlockingIOError as error:
        raise FederationError("Another run is being submitted at this moment. See `fedmri-server status`.") from error


def _require_free(home: Home) -> None:
    """One run at a time: two would share the sites' machines and their budgets."""
    for number in _running(home):
        raise FederationError(f"Run {number} is on already. Wait for it (`fedmri-server status`), or `fedmri-server cancel` it.")


def _running(home: Home) -> list[str]:
    with connect(home) as nodes:
        return [number for number, word in nodes.runs().items() if not word.startswith(OVER)]


def _status_patiently(home: Home, run: SubmittedRun) -> str:
    """Flower's word; "" where the SuperLink may be on its way back after a crash: the run goes on then, and so do we."""
    try:
        with connect(home) as nodes:
            return nodes.run_word(run.id) or UNKNOWN
    except FederationError:
        return ""


def _judge(home: Home, run: SubmittedRun, status: str) -> None:
    """A finished run succeeded only if Flower's status and the report both say so."""
    if (run.out / ERROR_NAME).is_file():
        raise FederationError(error_sentence(run.out / ERROR_NAME, _failed(home, run, status)))
    if status != "finished:completed" or not (run.out / run.result).is_file():
        raise FederationError(_failed(home, run, status))


def _failed(home: Home, run: SubmittedRun, status: str) -> str:
    again = " Go on with --resume." if (run.out / CHECKPOINTS).is_dir() else ""
    return f"The run ended as '{status}' without a result; see {home.log_of('superexec')}.{again}"
