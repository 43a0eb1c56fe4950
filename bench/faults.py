"""What happens at hospitals and servers, done to a real federation: every run ends whole, or with a sentence to act on.

    python bench/faults.py bench/faults.json
    python bench/faults.py bench/faults.json --only straggler

A coordinator and four hospitals on the loopback, over TLS and nginx, driven by the commands that people type. Each fault gives a
row of the table in docs/results.md: what was done, what is expected, what was seen, seconds to recover. Where one ends otherwise
than expected it is named, the others still run, and the exit code is 1. With all that Flower waits for it takes most of an hour.
"""

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the harness of the deployment tests lies there

import server_faults
import site_faults
from fault_bench import Bench
from fault_tools import Proxy

from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import Federation, free_port

FAULTS: dict[str, Callable[[Bench], None]] = {
    "late-approval": site_faults.late_approval,  # first: the others begin with four hospitals that have approved
    "site-killed": site_faults.site_killed,
    "site-terminated": site_faults.site_terminated,
    "superlink-killed": server_faults.superlink_killed,
    "serverapp-killed": server_faults.serverapp_killed,
    "server-disk-full": server_faults.server_disk_full,
    "site-disk-full": site_faults.site_disk_full,
    "hostile-sites": site_faults.hostile_sites,
    "straggler": site_faults.straggler,
    "network-cut": site_faults.network_cut,
    "two-of-one-name": server_faults.two_of_one_name,
    "clock-off": site_faults.clock_off,
}
NEED_ROOT = ("server-disk-full", "site-disk-full")  # they mount a small disk


def main() -> int:
    """Do the faults one after the other; 0 where all ended as expected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("table", type=Path, metavar="FILE", help="JSON; rows of the same fault are replaced")
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help=", ".join(FAULTS))
    arguments = parser.parse_args()
    if not shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        parser.error("nginx is not installed")
    with tempfile.TemporaryDirectory(prefix="fedmri-faults-") as folder:
        port = free_port()
        bench = Bench(Federation(Path(folder)), Proxy(port), arguments.table)
        try:
            begin(bench, port, all_approve="late-approval" not in arguments.only)
            failed = [name for name in FAULTS if name in arguments.only and not ended_well(name, bench)]
        finally:
            bench.federation.stop()
    print(f"Ended otherwise than expected: {', '.join(failed)}" if failed else "All ended as expected.")
    return 1 if failed else 0


def begin(bench: Bench, port: int, *, all_approve: bool) -> None:
    """Four hospitals online, the first of them through the proxy; all but that one have approved the code, or all."""
    federation = bench.federation
    federation.build(address=f"localhost:{port}", first_at=f"localhost:{bench.proxy.port}")
    federation.start()
    sha256 = build_bundle().sha256
    for site in list(federation.hospitals.values())[0 if all_approve else 1 :]:
        site.approve(sha256)
    for site in federation.hospitals.values():
        site.start()
    bench.sites()


def ended_well(name: str, bench: Bench) -> bool:
    """Do one fault; whatever comes of it is said."""
    if name in NEED_ROOT and os.geteuid() != 0:
        print(f"{name}: left out, mounting a small disk needs root", flush=True)
        return True
    try:
        FAULTS[name](bench)
    except Exception:  # the next fault is done all the same
        print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
