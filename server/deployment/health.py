"""Whether the SuperLink and the door before it answer."""

import socket
import ssl
import urllib.error
import urllib.request

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from common.config.site import split_address
from server.deployment.certificates import CA
from server.deployment.home import Home

PATIENCE = 3.0


def superlink_serves(home: Home) -> bool:
    """Whether the SuperLink's health service reports SERVING."""
    with grpc.insecure_channel(home.health, options=[("grpc.enable_http_proxy", 0)]) as channel:  # this machine only
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


def front_serves(home: Home) -> bool:
    """Whether /health answers through nginx, as a hospital would ask it."""
    host, port = split_address("listen", home.settings.listen_at)
    there = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    context = ssl.create_default_context(cafile=str(home.folder / CA))
    context.check_hostname = there == "127.0.0.1"  # another address may not stand in the certificate; the authority is ours
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    shown = f"[{there}]" if ":" in there else there
    try:
        with opener.open(f"https://{shown}:{port}/health", timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def port_taken(host: str, port: int) -> bool:
    """Whether another program holds the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
