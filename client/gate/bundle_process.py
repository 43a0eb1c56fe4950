"""Runs an approved bundle in a process of its own, with limits on time and reply size; leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, message_to_proto, recorddict_from_proto
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from client.gate.bundle_main import read_part, write_part
from client.gate.warm_bundle import MAIN, TooLargeError, TooLateError, WarmBundle, bundle_environment
from common.deployment.supervisor import die_with_parent
from common.errors import FederationError

ENDED = "the site's process ended before it answered"
TOO_LATE = "the site did not finish in time"


def run_bundle(
    message: Message,
    context: Context,
    folder: Path,
    *,
    seconds: float,
    most: int,
    warm: WarmBundle | None = None,
    on_doubt: Callable[[], None] = lambda: None,
) -> tuple[RecordDict, Context]:
    """Let the bundle's ClientApp answer, in a process of its own that ends with this one.

    Args:
        message: the server's request.
        context: Flower's, whose state is kept between the messages of a run.
        folder: the unpacked bundle.
        seconds: after which it is ended.
        most: bytes that the answer may have.
        warm: forks that process, where it is there still; else a new one is started.
        on_doubt: called where `warm` began nothing.

    Raises:
        FederationError: it failed, took too long, or answered what cannot be read. Its own words stay in the site's log.
    """
    request, deadline = request_bytes(message, context), time.monotonic() + seconds
    try:
        told = warm.answer(request, seconds=seconds, most=most) if warm else None
        if warm and not told:
            on_doubt()
        out, code = told or _started(request, folder, deadline - time.monotonic())
    except (TooLateError, subprocess.TimeoutExpired):
        raise FederationError(f"The bundle took more than {seconds:.0f} s.", public=TOO_LATE, rule="policy.max_hours") from None
    except TooLargeError:
        raise FederationError(f"The bundle's answer has more than {most} bytes.", public=ENDED, rule="bundle") from None
    if code or len(out) > most:
        how = f"signal {-code}" if code < 0 else f"exit code {code}, {len(out)} bytes"
        raise FederationError(f"The bundle's process ended with {how}; the log above says more.", public=ENDED, rule="bundle")
    try:
        answer = BytesIO(out)
        content = recorddict_from_proto(RecordDictProto.FromString(read_part(answer, most)))
        return content, context_from_proto(ContextProto.FromString(read_part(answer, most)))
    except Exception as error:  # protobuf and Flower raise many kinds
        raise FederationError(
            f"The bundle's answer cannot be read ({type(error).__name__}).", public=ENDED, rule="bundle"
        ) from error


def request_bytes(message: Message, context: Context) -> bytes:
    """What a bundle's process reads on stdin."""
    sent = BytesIO()
    write_part(sent, message_to_proto(message).SerializeToString())
    write_part(sent, context_to_proto(context).SerializeToString())
    return sent.getvalue()


def _started(request: bytes, folder: Path, seconds: float) -> tuple[bytes, int]:
    """What a process that is started for this message wrote to stdout, and its exit code.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """
    process = subprocess.Popen(
        [sys.executable, str(MAIN), str(folder)],
        cwd=folder,
        env=bundle_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509  one system call
        process_group=0,  # with the processes that it starts itself
    )
    with process:
        try:
            out, _ = process.communicate(request, timeout=seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return out, process.returncode
