"""The coordinator's view of the federation: programs, sites and run, each read from its source."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from common.deployment.supervisor import read_status
from common.errors import FederationError
from server.deployment.health import front_serves, superlink_serves
from server.deployment.home import Home
from server.deployment.registry import admitted
from server.deployment.run_status import DEAD, FAILED, failure, is_held, judged, last_round, last_run, newest_run
from server.deployment.service import certificate_days, certificate_trouble
from server.deployment.superlink_nodes import UNREGISTERED, Node, connect
from server.events.words import refusal, round_line

GOOD = {"running", "online", "serving", "answered", "finished", "training", "calibrating", "evaluating", "asked"}
RUN_COLUMNS = ("round", "seconds", "up", "down", "failures", "why")
BAD = {"offline", "not serving", "failed", "unreachable", "dead"}


@dataclass(frozen=True)
class SiteStatus:
    """One admitted site: its state at the SuperLink, and what the run does there."""

    name: str
    connection: str  # online, offline, registered (never seen), unregistered, unknown (the SuperLink does not answer)
    last_seen: str  # ISO; "": never
    run: dict[str, Any] = field(default_factory=dict)  # its entry in RUN/status.json


@dataclass(frozen=True)
class ServerStatus:
    """The status of a federation, as `fedmri-server status` shows it."""

    name: str
    address: str
    state: str  # of the supervisor: running or stopped
    superlink: str  # serving or not serving, by its health service
    front: str  # the same of nginx; "none"
    certificate_days: int
    programs: dict[str, Any]
    sites: tuple[SiteStatus, ...]
    run: dict[str, Any]  # status.json of the newest run, its folder, its last round; empty where there is none
    troubles: tuple[str, ...] = ()  # what is to be done, in sentences: the certificate, or the SuperLink refuses to tell


def server_status(home: Home) -> ServerStatus:
    """Look at everything once.

    Raises:
        ConfigError: the registry or the certificate cannot be read.
    """
    told = read_status(home.state)
    programs = told.get("programs")
    known, absent, word, refused = _asked(home)
    serves = superlink_serves(home)
    run = _run(home, word)
    front = home.settings.front
    return ServerStatus(
        home.settings.name,
        home.settings.address,
        str(told.get("state", "stopped")),
        _word(serves),
        front if front == "none" else _word(front_serves(home)),
        certificate_days(home),
        programs if isinstance(programs, dict) else {},
        _sites(home, known, absent, run.get("sites", {})),
        run,
        tuple(trouble for trouble in (certificate_trouble(home), refused if serves else "") if trouble),
    )


def in_order(status: ServerStatus) -> bool:
    """Whether all serves, by a certificate that holds, and no run is dead: the exit code of `status`."""
    serves = status.superlink == "serving" and status.front in ("serving", "none") and status.certificate_days >= 0
    return serves and status.run.get("state") != DEAD


def as_json(status: ServerStatus) -> dict[str, Any]:
    """For scripts: `fedmri-server status --json`."""
    return asdict(status) | {"now": datetime.now(UTC).isoformat(timespec="seconds")}


def show(status: ServerStatus) -> Group:
    """Tables for the terminal."""
    title = Text(f"{status.name} at {status.address}: {status.state}")
    parts: list[Any] = [_programs(status, title), _site_table(status)]
    if status.run:
        parts.append(_run_line(status.run))
    parts += [Text(trouble, style="yellow") for trouble in status.troubles]
    return Group(*parts)


def _asked(home: Home) -> tuple[dict[bytes, Node], str, str | None, str]:
    """Of the SuperLink: its nodes by key, what a site without one is, its word for the last run, and why it told nothing."""
    last = last_run(home)
    try:
        with connect(home) as nodes:
            return {node.key: node for node in nodes.all()}, UNREGISTERED, nodes.run_word(last.id) if last else None, ""
    except FederationError as error:
        return {}, "unknown", None, str(error)


def _sites(home: Home, known: Mapping[bytes, Node], absent: str, run: Any) -> tuple[SiteStatus, ...]:
    """Admitted sites, matched to the SuperLink's nodes by key and to the run's by name."""
    entries = run if isinstance(run, dict) else {}
    sites = []
    for site in admitted(home):
        node = known.get(site.key)
        entry = entries.get(site.name)
        sites.append(
            SiteStatus(
                site.name,
                node.status if node else absent,
                node.last_seen if node else "",
                entry if isinstance(entry, dict) else {},
            )
        )
    return tuple(sites)


def _run(home: Home, word: str | None) -> dict[str, Any]:
    """The newest run: the one submitted last, or else the newest folder that holds a status.

    Args:
        home: the coordinator's folder.
        word: Flower's for the run that was submitted last.
    """
    out, last = newest_run(home), last_run(home)
    if out is None:
        return {}
    elsewhere = None if is_held(out) else ""  # a folder that was moved: nobody knows its number, but its lock tells
    status = judged(out, word if last and last.out == out else elsewhere)
    told = {"error": failure(out)} if status.get("state") == FAILED else {}
    return status | told | {"folder": str(out), "last_round": last_round(out)}


def _programs(status: ServerStatus, title: Text) -> Table:
    table = Table("program", "state", "since", "restarts", "last exit", "why", title=title, title_justify="left")
    for column in table.columns:
        column.no_wrap = column.header in WHOLE
    health = {"superlink": status.superlink, "nginx": status.front}
    for name, entry in status.programs.items():
        told: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
        state = str(told.get("state", "")) if status.state == "running" else "stopped"
        words = _styled(state)
        if name in health:
            words += Text(", ") + _styled(health[name])
        ended = told.get("last_exit")
        cells = (_moment(str(told.get("since", ""))), str(told.get("restarts", 0)), "" if ended is None else str(ended))
        table.add_row(Text(name), words, *cells, Text(str(told.get("reason", ""))))
    return table


WHOLE = ("site", "connection", "program", "state")  # of no use in pieces: the other columns give way


def _site_table(status: ServerStatus) -> Table:
    """One row a site; what the run does at it only where there is a run."""
    table = Table("site", "connection", "last seen", *(RUN_COLUMNS if status.run else ()))
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.header in WHOLE
    for site in status.sites:
        seen = _moment(str(site.run.get("last_seen") or site.last_seen))
        table.add_row(Text(site.name), _styled(site.connection), seen, *(_run_cells(site.run) if status.run else ()))
    return table


def _run_cells(entry: Mapping[str, Any]) -> tuple[str | Text, ...]:
    seconds = entry.get("seconds")
    return (
        _styled(str(entry.get("state", ""))),
        f"{seconds:.0f}" if isinstance(seconds, int | float) else "",
        _megabytes(entry.get("bytes_up")),
        _megabytes(entry.get("bytes_down")),
        str(entry.get("failures", "")),
        Text(refusal(str(entry.get("rule") or ""), str(entry.get("reason", "")))),
    )


def _run_line(run: Mapping[str, Any]) -> Text:
    last = run.get("last_round") or {}
    text = Text(f"Run {run['folder']}: ")
    state = str(run.get("state", "not begun"))
    text += _styled(state)
    if state == FAILED and run.get("error"):
        text += Text(f" ({run['error']})")
    if state == DEAD:
        text += Text(f" since {_moment(str(run.get('dead_since')))} ({run.get('why')}; go on with it by --resume)")
    text += Text(f", round {run.get('round', 0)} of {run.get('rounds', '?')}")
    if (attempt := run.get("attempt")) and isinstance(attempt, int) and attempt > 1:
        text += Text(f", attempt {attempt}")
    if last:
        text += Text(f"\nLast finished: {round_line(last)}")
    return text


def _styled(word: str) -> Text:
    return Text(word, style="green" if word in GOOD else "red" if word in BAD else "yellow")


def _megabytes(number: Any) -> str:
    return f"{number / 1e6:.1f} MB" if isinstance(number, int | float) else ""


def _moment(text: str) -> str:
    """An ISO time as this machine's own, to the second; the day only where it is another."""
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        return "never"
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def _word(serves: bool) -> str:
    return "serving" if serves else "not serving"
