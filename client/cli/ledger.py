"""The verb of `fedmri-site` for a person's decision about a ledger that has forgotten charges."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from client.gate import ledger_watch
from client.gate.audit_log import LOG_NAME
from client.gate.replay_guard import alone
from client.privacy.ledger import read_ledger
from client.privacy.likeness import go_on_without
from common.cli import add_debug
from common.config.site import read_site_config
from common.errors import ConfigError

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_ledger(verbs: "Verbs") -> None:
    """Go on with the ledger as it is."""
    ledgers = verbs.add_parser("ledger", help="go on with a privacy ledger that has lost charges").add_subparsers(
        metavar="WHAT", required=True
    )
    text = (
        "Go on with the privacy ledger as it is, though the audit log knows of charges that it lacks: what was spent since is "
        "forgotten, and can be spent again; or though the fingerprints of its patients' images are lost. Put the newest backup "
        "back instead, if there is one. The decision and its reason are written into the audit log."
    )
    verb = ledgers.add_parser("accept", help="open the site again after a ledger was lost", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--reason", required=True, help="who decides, and why")
    add_debug(verb)
    verb.set_defaults(handler=_accept)


def _accept(arguments: argparse.Namespace) -> int:
    path, reason = arguments.site, arguments.reason.strip()
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Name a site's folder or its site.toml.")
    if not reason:
        raise ConfigError("--reason: expected a sentence, got nothing.")
    home, site = (path.parent if path.suffix == ".toml" else path), read_site_config(path)
    file, keys = home / site.privacy.ledger, home / Path(site.connection.key).expanduser().parent
    ledger = read_ledger(file, keys)
    state = home / Path(site.connection.state).expanduser()
    log = state / LOG_NAME
    with alone(state):
        known = ledger_watch.known_head(log)
        without = go_on_without(file, ledger, keys)
        if without is None and (not known or known in ledger.hashes()):
            raise ConfigError(
                f"{file}: the ledger lacks nothing that the audit log knows of, and no patient's fingerprint. Nothing was done."
            )
        ledger_watch.accept(log, without or ledger, reason)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    lost = (
        "later ones are forgotten" if without is None else "patients whose images come back in another form are not known again"
    )
    console.print(f"Written into {log}. The site goes on with {len(ledger.entries)} charges; {lost}.", style="yellow")
    return 0
