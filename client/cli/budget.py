"""`fedmri-site budget`: what the patients' privacy budget has left."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cli.private_run import existing, private_run
from client.gate.audit_log import LOG_NAME
from client.gate.ledger_watch import require_known
from client.privacy.budget import site_budget
from client.privacy.ledger import NO_BUDGET, read_ledger
from common.cli import add_debug
from common.data.cases import read_site
from common.privacy.charge import Charge


def add_budget(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the parser."""
    text = "What the patients' privacy budget has left, from the site's ledger. Nothing leaves this machine."
    verb = verbs.add_parser("budget", help="show the privacy budget: spent, left, rounds that fit", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--config", metavar="NAME|FILE", default="private", help="the planned run (default: private)")
    verb.add_argument(
        "--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change one of its settings"
    )
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_budget)


def _budget(arguments: argparse.Namespace) -> int:
    config = private_run(arguments)
    site = read_site(existing(arguments.site), config)
    budget, plan = site_budget(site, arguments.site), config.privacy
    home = arguments.site.parent if arguments.site.suffix == ".toml" else arguments.site
    log = home / Path(site.config.connection.state).expanduser() / LOG_NAME
    require_known(log, read_ledger(budget.path, budget.keys), budget.path)  # else lost charges are shown as a budget that is left
    one = Charge(plan.noise_multiplier, plan.sample_rate, plan.steps)
    spent, fit = budget.spent(), budget.rounds_left(one)
    result = {
        "site": site.name,
        "delta": budget.delta,
        "limit": budget.limit or None,
        "spent": spent if math.isfinite(spent) else None,
        "left": max(budget.limit - spent, 0.0) if budget.limit else None,
        "rounds_that_fit": fit,
        "rounds_planned": config.federation.rounds,
        "ledger": str(budget.path),
        "one_person": [list(ids) for ids in budget.twins()],
        "known_by_likeness": list(budget.likenesses()),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _print_budget(result, NO_BUDGET, Console())
    return 0


def _print_budget(result: dict[str, Any], no_budget: str, console: Console) -> None:
    """One row a fact, then what it means for the planned run."""
    table = Table("privacy budget", "epsilon", title=Text(f"Site {result['site']}"), title_justify="left")
    table.columns[1].justify = "right"
    for name in ("limit", "spent", "left"):
        value = result[name]
        table.add_row(name, "none set" if name != "spent" and value is None else "unbounded" if value is None else f"{value:.3f}")
    console.print(table)
    console.print(f"At delta {result['delta']:g}, for the patient who has spent most.", highlight=False)
    console.print(f"Ledger: {result['ledger']}", markup=False, highlight=False, soft_wrap=True)
    for ids in result["one_person"]:
        console.print(f"{', '.join(ids)}: one person, by their volumes or by the ledger.", style="yellow", markup=False)
    for name in result["known_by_likeness"]:
        text = (
            f"{name}: taken for a patient who was charged before, by the likeness of their images (resampled, cropped, stripped)."
        )
        console.print(text, style="yellow", markup=False)
    planned, fit = result["rounds_planned"], result["rounds_that_fit"]
    if fit is None:
        console.print(f"{no_budget} Training then stops by itself when it is spent.", markup=False, style="yellow")
    elif fit >= planned:
        console.print(f"The planned run fits: {planned} rounds.", style="green")
    else:
        console.print(f"{fit} of the {planned} planned rounds fit; the site takes no part in the others.", style="yellow")
