"""Resumes an interrupted run, so that model and privacy claims are those of an uninterrupted one.

RUN/run.json          what the run is: its name in the hospitals' ledgers, code, configuration, sites; written before round 1
RUN/open-round.json   the round whose requests went out, and how often each site may have trained in it; gone when it is over

A round is kept if its line in rounds.jsonl and its checkpoint are both whole; the first that is not is played again. What sites
may have spent on a round that is not kept is carried into the record of the next: a claim may be too high, never too low.
"""

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from logging import WARNING
from pathlib import Path
from typing import IO, Any

from flwr.supercore import log

from common.aggregation.aggregator import Aggregator, State
from common.errors import FederationError, FedMRIError
from common.files import locked, write_atomic
from common.messages.code_version import code_hash
from common.models.arrays import Arrays, check_arrays
from server.run.checkpoint import latest_round, load_round, load_state
from server.run.plan import RUN_NAME, RunPlan
from server.run.round_lines import Line, read_lines, write_lines
from server.strategy.round_state import ResumePoint

OPEN_NAME = "open-round.json"
LOCK_NAME = ".lock"
ANEW = "Start a new run in another folder."


class RunFolderTakenError(FederationError):
    """Another server runs in the folder: nothing in it is ours to change."""


def only_run(out: Path) -> IO[bytes]:
    """Hold the run folder alone, until what is returned is closed.

    Raises:
        RunFolderTakenError: another process runs in it, such as an earlier server that has not ended yet.
    """
    try:
        return locked(out / LOCK_NAME, wait=False)
    except BlockingIOError as error:
        raise RunFolderTakenError(f"Another process runs in {out}. Wait until it has ended, then try again.") from error


def require_in_place(out: Path) -> None:
    """Refuse to write on where the run folder, with its lock, was taken away: its parts would lie in two places.

    Raises:
        FederationError: it is not there any more.
    """
    if not (out / LOCK_NAME).is_file():
        raise FederationError(
            f"Run folder {out} was moved or removed while the run was on. Put it back, in place of what was begun there since, "
            "and go on with --resume; or start a new run in another folder."
        )


def require_free(out: Path) -> None:
    """Refuse, before anything is started or changed, a run folder in which a server is at work.

    Raises:
        RunFolderTakenError: one is.
    """
    if (out / LOCK_NAME).is_file():
        only_run(out).close()


def begin(plan: RunPlan, backbone: str) -> ResumePoint:
    """Begin a new run, and write run.json.

    Args:
        plan: its `out` is the run folder.
        backbone: SHA-256 of its weights.
    """
    run = secrets.token_hex(8)  # by chance: a ledger must tell two runs of one configuration apart
    table = {"run": run, **_facts(plan, backbone)}
    close_round(plan.out)  # of a run that died in its first round
    write_atomic(plan.out / RUN_NAME, json.dumps(table, indent=1).encode())
    return ResumePoint(run)


def resume(plan: RunPlan, template: Arrays, backbone: str) -> ResumePoint:
    """Find the last finished round of the run, and remove files of later ones.

    Args:
        plan: its `out` is the run folder.
        template: arrays of the agreed model, which a checkpoint must resemble.
        backbone: SHA-256 of its weights.

    Raises:
        FederationError: another configuration, code or sites than the run's; or its files are too damaged to go on from.
    """
    told = _read_table(plan.out / RUN_NAME)
    _require_same(plan, told, backbone)
    lines = read_lines(plan.out)
    number, arrays, state = _last_whole(plan.out, lines, template, plan.config.federation.aggregator)
    open_round, trained, redone = read_open(plan.out)
    parts = [line.get("trained", {}) for line in lines[number:]] + ([trained] if open_round > number else [])
    redone = (redone if open_round > number else 0) + sum(1 + line.get("redone", 0) for line in lines[number:])
    carried = add_up(parts)
    write_open(plan.out, number + 1, carried, redone)  # first, so that nothing is lost if this is cut off as well
    write_lines(plan.out, lines[:number])
    return ResumePoint(str(told["run"]), number, arrays, tuple(lines[:number]), carried, redone, state)


def require_same_run(plan: RunPlan) -> None:
    """Refuse, before anything is started or changed, to go on with a run by another configuration, code or external hospital.

    Raises:
        FederationError: names the first thing that differs; of the weights, which are not opened here, nothing is said.
    """
    told = _read_table(plan.out / RUN_NAME)
    _require_same(plan, told, told.get("backbone"))


def add_up(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum, by site."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def write_open(out: Path, number: int, trained: Mapping[str, int], redone: int) -> None:
    """Note an open round before its requests go out: sites may spend privacy budget on it."""
    write_atomic(out / OPEN_NAME, json.dumps({"round": number, "trained": dict(trained), "redone": redone}).encode())


def close_round(out: Path) -> None:
    """Remove the note of an open round."""
    (out / OPEN_NAME).unlink(missing_ok=True)


def read_open(out: Path) -> tuple[int, dict[str, int], int]:
    """The open round, the sites that may have trained in it, and `redone`; zeros where none is open.

    Raises:
        FederationError: the file is damaged.
    """
    path = out / OPEN_NAME
    if not path.is_file():
        return 0, {}, 0
    table = _read_table(path)
    number, trained, redone = table.get("round"), table.get("trained"), table.get("redone")
    counts = [number, redone, *(trained.values() if isinstance(trained, dict) else [None])]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise _damaged(path)
    return number, trained, redone  # type: ignore[return-value]


def _last_whole(out: Path, lines: list[Line], template: Arrays, strategy: Aggregator) -> tuple[int, Arrays | None, State]:
    """The last round that has both a line and a checkpoint that can be used, its arrays, and the aggregator's state."""
    latest = latest_round(out)
    if latest is not None and latest > len(lines) + 1:
        raise FederationError(
            f"Run folder {out}: its checkpoint is of round {latest}, rounds.jsonl has {len(lines)} rounds. {ANEW}"
        )
    for number in range(len(lines) if latest is None else min(latest, len(lines)), 0, -1):
        try:
            arrays = load_round(out, number)
            check_arrays(arrays, template)
            state = load_state(out, number, strategy.init(template))
        except FedMRIError as error:
            log(WARNING, "Round %d is played again: its checkpoint cannot be used. %s", number, error)
            continue
        return number, arrays, state
    if lines:
        raise FederationError(f"Run folder {out}: {len(lines)} rounds are done, and no checkpoint of them is whole. {ANEW}")
    return 0, None, {}


def _facts(plan: RunPlan, backbone: Any) -> dict[str, Any]:
    """What must be equal when a run is resumed."""
    return {
        "code": code_hash(),
        "config": json.loads(plan.config.to_json()),
        "sites": list(plan.sites),
        "external": "+".join(plan.external),
        "backbone": backbone,
    }


def _require_same(plan: RunPlan, told: Mapping[str, Any], backbone: Any) -> None:
    """Refuse to mix two runs.

    Raises:
        FederationError: names the first thing that differs.
    """
    where = f"Run folder {plan.out} cannot be resumed"
    facts = _facts(plan, backbone)
    if not isinstance(told.get("run"), str) or not isinstance(told.get("config"), dict):
        raise _damaged(plan.out / RUN_NAME)
    if told.get("code") != facts["code"]:
        raise FederationError(
            f"{where}: it was begun by other code ({str(told.get('code'))[:12]}) than this ({facts['code'][:12]}). "
            "Install the version that began it, or start a new run."
        )
    for name in ("config", "sites", "external", "backbone"):
        mine = facts[name]
        key = difference(told.get(name), mine, "" if name == "config" else name)
        if key:
            was, now = (_at(value, key if name == "config" else "") for value in (told.get(name), mine))
            raise FederationError(f"{where}: {key} was {was} and is {now} now. Give the run's own settings, or start a new run.")


def difference(one: Any, other: Any, key: str = "") -> str:
    """The dotted key of the first value that differs; "" where none does."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            found = difference(one.get(name), other.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return ""
    return "" if one == other else key


def _at(value: Any, key: str) -> str:
    """The value at a dotted key, short."""
    for part in key.split(".") if key else ():
        value = value.get(part) if isinstance(value, dict) else None
    return json.dumps(value)[:80]


def _read_table(path: Path) -> dict[str, Any]:
    """A small JSON file of ours."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(table, dict):
        raise _damaged(path)
    return table


def _damaged(path: Path) -> FederationError:
    return FederationError(f"{path}: expected what the run wrote there; it is damaged. {ANEW}")
