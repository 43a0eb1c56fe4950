"""`fedmri-server`: what the coordinator runs."""

import argparse
import sys

from common.cli import add_rooms, run_command

ROOMS = {
    "server.cli.plan:add_plan": ("plan",),
    "server.cli.audit:add_audit": ("audit",),
    "server.cli.report:add_report": ("report",),
    "server.cli.deployment:add_deployment": (
        *("init", "renew", "invite", "admit", "revoke", "start", "stop", "status", "run", "survey", "cancel", "bundle"),
    ),
    "server.cli.release:add_export": ("release-key", "export", "verify"),
    "server.cli.hand_out:add_hand_out": ("hand-out",),
    "server.cli.roles:add_roles": ("log", "observer", "observe"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 fine, 1 failed or a claim refuted, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="fedmri-server", description="FedMRI at the coordinator.")
    add_rooms(parser.add_subparsers(metavar="VERB", required=True), ROOMS, argv)
    return run_command(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
