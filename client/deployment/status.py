"""`fedmri-site status`: what runs, whether the server is reached, what came in and went out last."""

import json
from shlex import quote
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from client.deployment.archive import MOVED_NAME
from client.deployment.exit_reasons import is_connected, read_tail
from client.deployment.home import SiteHome
from client.deployment.service import PORTS_NAME, supernode_log
from client.gate.audit_log import ANSWERED, ASKED, EARLIER, REFUSED
from client.gate.audit_log import LOG_NAME as AUDIT_NAME
from common.deployment.flower_cli import SUPERNODE
from common.deployment.supervisor import read_status

HEALTH_SECONDS = 2.0
EVENTS = (ASKED, ANSWERED, REFUSED)


def site_status(home: SiteHome) -> dict[str, Any]:
    """The status of a deployed site, as plain values for JSON."""
    told = read_status(home.state)
    programs = told.get("programs")
    programs = programs if isinstance(programs, dict) else {}
    runs = told.get("state") == "running"
    healthy = runs and is_healthy(home)
    alive = runs and programs.get(SUPERNODE, {}).get("state") == "running"
    connected = bool(alive and healthy and is_connected(read_tail(supernode_log(home))))
    return {
        "site": home.name,
        "state": told.get("state", "stopped"),
        "pid": told.get("pid") if runs else None,
        "since": told.get("since") if runs else None,
        "server": home.address,
        "supernode_healthy": healthy,
        "connected": connected,
        "sentence": _sentence(home, runs, connected, programs),
        "programs": programs if runs else {},
        "last": last_events(home),
        "logs": str(home.logs),
    }


def is_healthy(home: SiteHome) -> bool:
    """Whether the SuperNode's own health service reports SERVING."""
    try:
        port = int(json.loads((home.state / PORTS_NAME).read_text(encoding="utf-8"))["health"])
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=HEALTH_SECONDS)
    except (OSError, ValueError, KeyError, TypeError, grpc.RpcError):
        return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def last_events(home: SiteHome) -> dict[str, str | None]:
    """Times of the last request, answer and refusal in the site's audit log; None where there was none lately."""
    found: dict[str, str | None] = dict.fromkeys(EVENTS)
    for line in read_tail(home.state / AUDIT_NAME, 1 << 20).splitlines():
        try:
            entry = json.loads(line)
            event, when = EARLIER.get(entry["event"], entry["event"]), entry["time"]
        except (ValueError, KeyError, TypeError):
            continue  # the first line may be cut; `fedmri-site audit verify` is for the rest
        if event in found:
            found[event] = str(when)
    return found


def _sentence(home: SiteHome, runs: bool, connected: bool, programs: dict[str, Any]) -> str:
    folder = quote(str(home.folder))
    if not runs and (home.state / MOVED_NAME).is_file():
        return f"The site was moved elsewhere by `fedmri-site move`, and does not start here ({home.state / MOVED_NAME})."
    if not runs:
        return f"The site is stopped. `fedmri-site start {folder}` starts it."
    if connected:
        return f"The site runs and is connected to {home.address}."
    reason = str(programs.get(SUPERNODE, {}).get("reason") or "")
    if reason:
        return f"The site runs, but is not connected to {home.address}: {reason.rstrip('.')}."
    return f"The site runs, but {home.address} is not reached yet; it keeps trying. `fedmri-site doctor {folder}` says why."
