"""Flower's side of the gate: pulls one message from the SuperNode, pushes its reply (flwr 1.41's `run_clientapp`)."""

import argparse
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from flwr.app import Error, Message
from flwr.common.args import add_args_flwr_app_common, try_obtain_flwr_app_token
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.tls import validate_and_resolve_root_certificates
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.gate.gate import Gate
from client.gate.parent import end_without
from common.deployment.flower_cli import SUPERNODE
from common.deployment.supervisor import read_status
from common.errors import FedMRIError, PolicyError
from common.messages.parcel import MARK, packed

CLIENT_APP = "flwr-clientapp"
logger = logging.getLogger("fedmri.gate")


def serve(name: str, arguments: list[str], gate: Gate) -> int:
    """Answer the one message that the token stands for; returns the exit code.

    Args:
        name: of the program that Flower's executor wanted to start; only a ClientApp has anything to do at a hospital.
        arguments: Flower's.
        gate: decides whether the bundle may answer.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--runtime-api-address", required=True)
    add_args_flwr_app_common(parser)
    options = parser.parse_args(arguments)
    if options.parent_pid is not None:
        end_without(options.parent_pid)
    retries = make_simple_http_retry_invoker()
    client = _client(options, retries)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    context, status, replied = None, SubStatus.FAILED, False
    try:
        message, context, _, bundle = pull_task_input(client)
        try:
            if name != CLIENT_APP:
                raise PolicyError(f"Flower asked for {name}; only a ClientApp may run at a hospital.")
            takes_parcels = message.has_content() and MARK in message.content
            content, context = gate.answer(message, context, bundle.content)
            content = packed(content) if takes_parcels else content
            reply, status = Message(content, reply_to=message), SubStatus.COMPLETED
        except Exception:  # whatever it is, the SuperNode must get a reply: it waits for one and takes no other request
            logger.exception("Nothing but an error without a text left the site.")
            reply = _failure(message)
        try:
            push_message(client, reply, context)
        except Exception:
            renew_supernode(gate.state)
            raise
        replied = True
        return 0 if status == SubStatus.COMPLETED else 1
    finally:
        retries.max_tries = 1  # the SuperNode may be gone: do not wait for it on the way out
        if replied:  # a task that ends without a reply is left to expire: then Flower replies in its place
            with suppress(Exception):
                push_task_output(client=client, context=context, sub_status=status, details="")
        heartbeat.stop()
        client.close()


def _client(options: argparse.Namespace, retries: RetryInvoker) -> RuntimeHttpClient:
    """Flower's way to the SuperNode, for the one message that the token stands for."""
    return RuntimeHttpClient.from_server_address(
        server_address=options.runtime_api_address,
        insecure=options.insecure,
        root_certificates=validate_and_resolve_root_certificates(options.root_certificates, options.insecure),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name=CLIENT_APP),
            RuntimeTokenHttpInterceptor(try_obtain_flwr_app_token(options)),
        ],
        retry_invoker=retries,
    )


def renew_supernode(state: Path) -> None:
    """End the site's SuperNode; the supervisor starts another.

    One that takes no reply has given up on this task and has replied in its place, and not for this task alone but for all of
    the run. It sends one reply for each request, so from a reply too many on it would hold every later one back until the next
    request comes: the site would miss each round. Where no supervisor is alive none would start it anew, and the number that it
    left behind may be another's by now.
    """
    status = read_status(state)
    programs = status.get("programs") if status.get("state") != "stopped" else None
    told = programs.get(SUPERNODE) if isinstance(programs, dict) else None
    pid = told.get("pid") if isinstance(told, dict) else None
    if isinstance(pid, int) and pid > 1:
        logger.warning("The SuperNode took no reply to this request. It is started anew.")
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _failure(message: Message) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, FedMRIError.public_default), reply_to=message)
