"""The verbs of `fedmri-server` that run a real federation."""

import argparse
import json
import time
from pathlib import Path
from shlex import quote
from typing import Any, TypeAlias

from rich.live import Live

from common.cli import add_debug, add_unlabelled, output
from common.deployment.supervisor import end, running
from common.errors import ConfigError
from server.deployment.acts import ADMIT, CANCEL, INVITE, RENEW, REVOKE, START, STOP, acting
from server.deployment.home import Home, ServerSettings, open_home
from server.deployment.provision import init_home, renew_certificate
from server.deployment.registry import admit, read_key, revoke, synchronise
from server.deployment.service import serve, serve_in_background
from server.deployment.status import ServerStatus, as_json, in_order, server_status, show
from server.deployment.superlink_nodes import connect

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
WATCH_SECONDS = 2.0


def add_deployment(verbs: Verbs) -> None:
    """Add the verbs to the parser."""
    _add_init(verbs)
    _add_registry(verbs)
    _add_service(verbs)
    _add_run(verbs)
    verb = _verb(verbs, "bundle", "build the bundle that the hospitals approve", _bundle, home=False)
    verb.add_argument("out", type=Path, nargs="?", metavar="OUT.fab", help="write it there")
    verb.add_argument("--json", action="store_true", help="print JSON")


def _verb(verbs: Verbs, name: str, text: str, handler: Any, *, home: bool = True) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    if home:
        verb.add_argument("home", type=Path, metavar="HOME", help="the coordinator's folder")
    add_debug(verb)
    verb.set_defaults(handler=handler)
    return verb


def _add_init(verbs: Verbs) -> None:
    verb = _verb(verbs, "init", "make a coordinator's folder, with its certificate authority", _init)
    verb.add_argument("--address", metavar="HOST:PORT", required=True, help="where the hospitals reach this machine")
    verb.add_argument("--name", default="fedmri", help="of the federation (default: fedmri)")
    verb.add_argument("--listen", metavar="IP:PORT", default="", help="what nginx takes (default: all addresses, that port)")
    verb.add_argument("--front", choices=("nginx", "none"), default="nginx", help="none: a proxy of your own")
    defaults = ServerSettings(address="localhost:1", front="none")
    for name in ("superlink_port", "health_port"):
        flag = f"--{name.replace('_', '-')}"
        verb.add_argument(flag, type=int, default=getattr(defaults, name), help="of the loopback (default: %(default)s)")
    _verb(verbs, "renew", "make a new certificate by the same authority", _renew)


def _add_registry(verbs: Verbs) -> None:
    verb = _verb(verbs, "invite", "write the one file that a hospital needs to join; no secret is in it", _invite)
    verb.add_argument("name", metavar="NAME", help="of the hospital, in the report too")
    verb.add_argument("--config", metavar="NAME|FILE", required=True, help="the planned run: its frozen weights are named")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    verb.add_argument("--out", type=Path, metavar="FILE", help="the invitation (default: HOME/invitations/NAME.txt)")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb = _verb(verbs, "admit", "let a hospital in", _admit)
    verb.add_argument("key", metavar="KEYFILE|LINE", help="the public key that it sent: the file, or the line in it")
    verb.add_argument("--name", default="", help="of the hospital, in the report too (default: as it was invited)")
    verb.add_argument("--again", action="store_true", help="take back a key that was revoked")
    text = (
        "patients that were agreed with it: no more count in the mean, whatever it says; admit it again to change them, 0: none"
    )
    verb.add_argument("--patients", type=int, metavar="N", help=text)
    verb = _verb(verbs, "revoke", "let a hospital in no more", _revoke)
    verb.add_argument("name", metavar="NAME")


def _add_service(verbs: Verbs) -> None:
    verb = _verb(verbs, "start", "run SuperLink, SuperExec and nginx until told to stop", _start)
    verb.add_argument("--background", action="store_true", help="return once all answers; `stop` ends it")
    _verb(verbs, "stop", "end what `start` began", _stop)
    verb = _verb(verbs, "status", "show programs, hospitals and the run", _status)
    shown = verb.add_mutually_exclusive_group()
    shown.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    shown.add_argument("--json", action="store_true", help="print JSON")


def _add_run(verbs: Verbs) -> None:
    verb = _verb(verbs, "run", "train with the hospitals that are connected", _run)
    verb.add_argument("--config", metavar="NAME|FILE", required=True, help="the run configuration")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    add_unlabelled(verb)
    text = "folder of a held-out hospital, on this machine; may be given again for folders beside it"
    verb.add_argument("--external", type=Path, metavar="DIR", action="append", required=True, help=text)
    verb.add_argument("--out", type=Path, metavar="RUN", help="the run folder (default: a new one in HOME/runs)")
    verb.add_argument("--cache", type=Path, metavar="DIR", help="of the prepared external patients")
    verb.add_argument("--resume", action="store_true", help="go on from RUN's last checkpoint")
    verb.add_argument("--detach", action="store_true", help="return at once; `status` shows its progress")
    text = "say what it would take in time, memory and bytes, and do nothing"
    verb.add_argument("--dry-run", action="store_true", help=text)
    verb.add_argument("--json", action="store_true", help="with --dry-run: print JSON")
    verb = _verb(verbs, "survey", "ask the hospitals that are connected what they have, before anything trains", _survey)
    verb.add_argument("--config", metavar="NAME|FILE", required=True, help="whose classes and modalities are asked for")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    verb.add_argument("--out", type=Path, metavar="DIR", help="for survey.json and its page (default: a new one in HOME/runs)")
    verb.add_argument("--json", action="store_true", help="print JSON")
    _verb(verbs, "cancel", "stop the run that is on; it can be resumed", _cancel)


def _init(arguments: argparse.Namespace) -> int:
    names = ("name", "address", "listen", "front", "superlink_port", "health_port")
    home = init_home(arguments.home, ServerSettings(**{name: getattr(arguments, name) for name in names}))
    _say(f"Made {home.folder}. Guard it: its ca.key can make anyone the coordinator; keep a copy of it offline.")
    _say(f"Write what a hospital needs to join: fedmri-server invite {quote(str(home.folder))} NAME --config CONFIG")
    _say(f"Let it in by the line that it sends back: fedmri-server admit {quote(str(home.folder))} 'LINE'")
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    with acting(home, RENEW):
        until = renew_certificate(home)
    again = " Stop and start the service: it holds the old one." if running(home.state) is not None else ""
    _say(f"The new certificate for {home.settings.host} is valid until {until:%Y-%m-%d}.{again}")
    return 0


def _invite(arguments: argparse.Namespace) -> int:
    from server.deployment.invite import invite  # noqa: PLC0415  as `_bundle`

    home = open_home(arguments.home)
    with acting(home, INVITE, site=arguments.name):
        file, made, fingerprint = invite(home, arguments.name, arguments.config, tuple(arguments.settings), arguments.out)
    if arguments.json:
        print(json.dumps({"file": str(file), "fingerprint": fingerprint, "bundle": made.bundle_sha256}))
        return 0
    _say(f"Send this file to {made.site}: {file}")
    _say(f"Read this out when you telephone: {fingerprint}")
    _say(f"Code to be approved there: {made.bundle_sha256}")
    _say(f"Let it in by the line that it sends back: fedmri-server admit {quote(str(home.folder))} 'LINE'")
    return 0


def _admit(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    line = arguments.key.strip(" \t\r\n'\"")  # as it is copied out of an e-mail
    key: str | Path = line if line.startswith("ecdsa-sha2-") else Path(arguments.key)
    name = arguments.name or _invited(home, key)
    facts = {"site": name, "key": read_key(key, name).fingerprint, "again": arguments.again}
    facts |= {} if arguments.patients is None else {"patients": arguments.patients}
    with acting(home, ADMIT, **facts):
        site = admit(home, key, name, again=arguments.again, patients=arguments.patients)
    kept = " (as agreed before)" if arguments.patients is None else ""
    agreed = f", {site.patients} patients at most{kept}" if site.patients else ""
    _say(f"Admitted {site.name}, key {site.fingerprint}{agreed}. {_tell_superlink(home)}")
    _say("Let the hospital read its key's fingerprint out to you: `join` showed it there, and `fedmri-site doctor` does.")
    return 0


def _invited(home: Home, key: str | Path) -> str:
    """The name that stands after a key, if a hospital was invited by it: nobody names themselves.

    Raises:
        ConfigError: nobody was.
    """
    from server.deployment.invite import was_invited  # noqa: PLC0415

    read_key(key, "")
    name = (key if isinstance(key, str) else key.read_text(encoding="utf-8")).split()[2:]
    if len(name) != 1 or not was_invited(home, name[0]):
        said = " ".join(name)[:80] or "no name"
        raise ConfigError(f"{said!r} stands after the key, and nobody was invited by it. Say who it is with --name NAME.")
    return name[0]


def _revoke(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    with acting(home, REVOKE, site=arguments.name):
        site = revoke(home, arguments.name)
    _say(f"Revoked {site.name}, key {site.fingerprint}. {_tell_superlink(home)}")
    return 0


def _tell_superlink(home: Home) -> str:
    """Let the SuperLink know at once where it runs; otherwise the next start does it."""
    if running(home.state) is None:
        return "It counts from the next start."
    with connect(home) as nodes:
        synchronise(home, nodes)
    return "It counts from now."


def _start(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    if arguments.background:  # it gives this command anew, in a process of its own
        pid = serve_in_background(home)
        _say(f"Ready at {home.settings.address} (process {pid}). See `fedmri-server status {quote(str(home.folder))}`.")
        return 0
    with acting(home, START):
        serve(home, _say)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    with acting(home, STOP):
        ended = end(home.state)
    _say("Stopped." if ended else "Nothing runs here.")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    home = open_home(arguments.home)
    status = server_status(home)
    if arguments.json:
        print(json.dumps(as_json(status), indent=2))
    elif arguments.watch:
        _watch(home, status)
    else:
        output().print(show(status))
    return 0 if in_order(status) else 1


def _watch(home: Home, status: ServerStatus) -> None:
    """Until it is interrupted: in place on a terminal, one after the other into a file or a pipe."""
    console = output()
    if not console.is_terminal:
        while True:
            console.print(show(status))
            time.sleep(WATCH_SECONDS)
            status = server_status(home)
    with Live(show(status), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(show(server_status(home)), refresh=True)


def _run(arguments: argparse.Namespace) -> int:
    from server.cli.run import run  # noqa: PLC0415  what trains takes seconds to load

    return run(arguments)


def _survey(arguments: argparse.Namespace) -> int:
    from server.cli.survey import survey  # noqa: PLC0415  as above

    return survey(arguments)


def _cancel(arguments: argparse.Namespace) -> int:
    from server.deployment.submit import cancel  # noqa: PLC0415

    home = open_home(arguments.home)
    with acting(home, CANCEL):
        number = cancel(home)
    _say(f"Stopped run {number}; go on with `fedmri-server run ... --resume`." if number else "No run is on.")
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    from server.deployment.bundle import build_bundle  # noqa: PLC0415

    bundle = build_bundle()
    if arguments.out:
        arguments.out.write_bytes(bundle.content)
    if arguments.json:
        print(json.dumps({"sha256": bundle.sha256, "bytes": len(bundle.content)}))
    else:
        print(bundle.sha256)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
