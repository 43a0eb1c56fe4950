"""`fedmri-site`: what a hospital runs on its own machine."""

import argparse
import os
import sys

from common.cli import add_rooms, run_command

ROOMS = {
    "client.cli.check:add_check": ("check",),
    "client.cli.budget:add_budget": ("budget",),
    "client.cli.privacy_audit:add_audit": ("audit", "pins"),
    "client.cli.importing:add_import": ("import",),
    "client.cli.predict:add_predict": ("predict",),
    "client.cli.approvals:add_approve": ("approve",),
    "client.cli.ledger:add_ledger": ("ledger",),
    "client.cli.weights:add_weights": ("weights",),
    "client.cli.models:add_models": ("models",),
    "client.cli.withdraw:add_withdraw": ("withdraw", "cache"),
    "client.cli.archive:add_archive": ("backup", "move", "restore"),
    "client.cli.deployment:add_verbs": ("init", "join", "doctor", "start", "status", "stop"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 fine, 1 problems found, 2 wrong use."""
    os.umask(0o077)  # ledger, log and slices are for this user alone
    parser = argparse.ArgumentParser(prog="fedmri-site", description="FedMRI at the hospital.")
    add_rooms(parser.add_subparsers(metavar="VERB", required=True), ROOMS, argv)
    return run_command(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
