"""`fedmri-site`: what a hospital runs on its own machine."""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cli.approvals import add_approve, add_audit_verify
from client.cli.archive import add_archive
from client.cli.check import add_check
from client.cli.deployment import add_verbs
from client.cli.importing import add_import
from client.cli.ledger import add_ledger
from client.cli.models import add_models
from client.cli.predict import add_predict
from client.cli.weights import add_weights
from client.cli.withdraw import add_cache, add_withdraw
from common.cli import add_debug, config_path, run_command
from common.config.run import RunConfig, load_config
from common.errors import ConfigError

if TYPE_CHECKING:
    from client.privacy.audit import PrivacyAudit


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 fine, 1 problems found, 2 wrong use."""
    os.umask(0o077)  # ledger, log and slices are for this user alone
    parser = argparse.ArgumentParser(prog="fedmri-site", description="FedMRI at the hospital.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_check(verbs)
    _add_budget(verbs)
    _add_audit(verbs)
    _add_pins(verbs)
    add_import(verbs, main)
    add_predict(verbs)
    add_approve(verbs)
    add_ledger(verbs)
    add_weights(verbs)
    add_models(verbs)
    add_withdraw(verbs)
    add_cache(verbs)
    add_archive(verbs)
    add_verbs(verbs)
    return run_command(parser, argv)


def _add_budget(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_audit(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "Try to catch a wrong privacy claim: exact tests, canaries, membership inference. Nothing leaves this machine."
    audits = verbs.add_parser("audit", help="audit what the software claims").add_subparsers(metavar="WHAT", required=True)
    verb = audits.add_parser("privacy", help="differential privacy", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--config", metavar="NAME|FILE", default="private", help="the private run (default: private)")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    verb.add_argument("--model", type=Path, metavar="FILE", help="model.safetensors of the run, for membership inference")
    verb.add_argument("--others", type=Path, metavar="FOLDER", help="labelled patients that the run did not train on")
    verb.add_argument(
        "--json", action="store_true", help="print JSON, for `fedmri-server audit`; discloses the number of patients"
    )
    add_debug(verb)
    verb.set_defaults(handler=_audit)
    add_audit_verify(audits)


def _audit(arguments: argparse.Namespace) -> int:
    import torch

    from client.privacy.audit import audit_privacy, audit_table
    from common.data.cache import default_cache, open_site
    from common.data.cases import read_site

    if (arguments.model is None) != (arguments.others is None):
        raise ConfigError("Membership inference needs both --model and --others.")
    config = _private(arguments)
    folders = [_existing(path) for path in (arguments.site, arguments.others) if path]
    sites = [open_site(read_site(folder, config), config.data, default_cache()) for folder in folders]
    generator = torch.Generator().manual_seed(config.seed)
    others = sites[1] if len(sites) > 1 else None
    with Console(stderr=True).status("Auditing: exact tests, then canaries; a minute or so"):
        result = audit_privacy(sites[0], config, generator, trained=arguments.model, others=others)
    if arguments.json:
        print(json.dumps(audit_table(result, config), indent=2))
    else:
        _print_audit(result, Console())
    return 0 if result.passed else 1


def _add_pins(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "The hashes that pin a run's backbone and first adapters, to be pasted into site.toml."
    verb = verbs.add_parser("pins", help="what to pin in site.toml", description=text)
    verb.add_argument("--config", metavar="NAME|FILE", required=True, help="the agreed run")
    verb.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[], help="change a setting of it")
    add_debug(verb)
    verb.set_defaults(handler=_pins)


def _pins(arguments: argparse.Namespace) -> int:
    from common.models.arrays import arrays_sha256, get_arrays
    from common.models.build import build_model

    model = build_model(load_config(config_path(arguments.config), tuple(arguments.settings)))
    print(f'[policy]\nbackbone_sha256 = "{model.backbone_sha256}"\ninitial_sha256 = "{arrays_sha256(get_arrays(model))}"')
    return 0


def _print_audit(result: "PrivacyAudit", console: Console) -> None:
    """One row a check, then the verdict."""
    canary = result.canary
    proved = f"proved {canary.audited:.2f}, claimed {canary.claimed:.2f} ({canary.right} of {canary.guesses} guesses right)"
    rows = [(check.name, check.passed, check.detail) for check in result.checks]
    rows.append(("canaries do not refute epsilon", canary.passed, proved))
    table = Table("check", "", "found")
    for name, passed, detail in rows:
        table.add_row(Text(name), Text("passed" if passed else "FAILED", style="green" if passed else "red"), Text(detail))
    if result.membership_auc is not None:
        table.add_row("membership inference", "", f"AUC {result.membership_auc:.3f} (0.5: losses tell nothing)")
    console.print(table)
    verdict = "Nothing found against the claim; that is no proof of it." if result.passed else "The privacy claim is refuted."
    console.print(verdict, style="green" if result.passed else "red")


def _private(arguments: argparse.Namespace) -> RunConfig:
    """The planned run, which must be a private one."""
    config = load_config(config_path(arguments.config), tuple(arguments.settings))
    if not config.privacy.enabled:
        raise ConfigError(f"--config {arguments.config}: the run has no privacy (privacy.enabled = false). Name one that has.")
    return config


def _budget(arguments: argparse.Namespace) -> int:
    from client.privacy.budget import site_budget
    from client.privacy.ledger import NO_BUDGET
    from common.data.cases import read_site
    from common.privacy.charge import Charge

    config = _private(arguments)
    site = read_site(_existing(arguments.site), config)
    budget, plan = site_budget(site, arguments.site), config.privacy
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


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Name a site's folder or its site.toml.")
    return path


if __name__ == "__main__":
    sys.exit(main())
