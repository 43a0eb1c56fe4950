"""`fedmri-site audit` and `fedmri-site pins`: what the software claims, put to the test; what a site may hold a run to."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cli.approvals import add_audit_verify
from client.cli.private_run import existing, private_run
from common.cli import add_debug, config_path
from common.config.run import load_config
from common.errors import ConfigError

if TYPE_CHECKING:
    from client.privacy.audit import PrivacyAudit


def add_audit(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both verbs to the parser."""
    _add_audit(verbs)
    _add_pins(verbs)


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
    config = private_run(arguments)
    folders = [existing(path) for path in (arguments.site, arguments.others) if path]
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
