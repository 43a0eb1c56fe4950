"""Runs an approved bundle in a process of its own: a message comes in on stdin, its reply's content leaves on stdout.

This file is started by its path, by the gate, and imports nothing of ours: `client` and `common` are the bundle's here. What the
bundle answers, the gate looks at before it leaves.

    stdin    message, context (Flower's protobuf, each after its length in 8 bytes)
    stdout   content of the reply, context

With a socket's number as second argument it answers nothing itself: it imports the bundle's code, and forks a child for each
message (`client.gate.warm_bundle`), which answers as above and ends. So every message meets the state that importing leaves, and
no other.

    in       a byte, with three files: the child's stdin, its stdout, and a socket whose end ends the child
    out      on that socket: the child's number before it begins; then how it ended (`os.waitstatus_to_exitcode`); 4 bytes each
"""

import atexit
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import threading
import tomllib
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

GPU_FILES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
LOOK_SECONDS = 0.02  # between two looks at a child
_PDEATHSIG, _DUMPABLE = 1, 4  # of prctl


def main(folder: str) -> None:
    """Answer one message with the ClientApp of the bundle that is unpacked in `folder`."""
    answer(app_of(folder))


def app_of(folder: str) -> Any:
    """The bundle's ClientApp."""
    sys.path[0] = folder  # in the place of this file's own folder
    from flwr.supercore.object_ref import load_app  # noqa: PLC0415

    table = tomllib.loads((Path(folder) / "pyproject.toml").read_text(encoding="utf-8"))
    return load_app(table["tool"]["flwr"]["app"]["components"]["clientapp"], RuntimeError, folder)


def answer(app: Any) -> None:
    """Answer the message on stdin."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the bundle prints goes to the site's log, not into the answer
    from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, recorddict_to_proto  # noqa: PLC0415
    from flwr.proto.message_pb2 import Context, Message  # noqa: PLC0415
    from flwr.supercore.task_identity import TaskIdentity  # noqa: PLC0415

    with open(0, "rb", closefd=False) as file:
        message = message_from_proto(Message.FromString(read_part(file)))
        context = context_from_proto(Context.FromString(read_part(file)))
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, context.run_id, context.node_id
    reply = app(message=message, context=context)
    write_part(out, recorddict_to_proto(reply.content).SerializeToString())
    write_part(out, context_to_proto(context).SerializeToString())
    out.close()


def keep(folder: str, control: socket.socket) -> None:
    """Fork a child for each message, one at a time, until nobody asks any more or a child fails."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PDEATHSIG, signal.SIGKILL)
    try:
        app = app_of(folder)
        import flwr.common.serde  # noqa: PLC0415, F401  what `answer` needs is there already

        require_forkable()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # whatever threads there are: who asks must not wait
    prctl(_DUMPABLE, 0)  # no child reads or writes the memory that the next one begins with
    gc.collect()
    gc.freeze()
    status = 0
    while not status:
        data, files, *_ = socket.recv_fds(control, 1, 3)
        if not data or len(files) != 3:
            return
        status = _serve(app, control, *files)


def require_forkable() -> None:
    """Refuse to fork a process that has begun to compute.

    Raises:
        RuntimeError: the bundle's import has started a thread, or a GPU's driver.
    """
    if threading.active_count() != 1:
        raise RuntimeError("The bundle starts threads when it is imported: each message gets a process of its own.")
    if any(name.startswith(GPU_FILES) for name in _open_files()):  # a driver that is awake serves no child
        raise RuntimeError("The bundle starts a GPU when it is imported: each message gets a process of its own.")


def _open_files() -> list[str]:
    """What this process has open, by name."""
    found = []
    for file in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{file}"))
    return found


def _serve(app: Any, control: socket.socket, asked: int, told: int, life: int) -> int:
    """One message's child, from its start to its end; returns its exit code."""
    with socket.socket(fileno=life) as gate:
        waiting, go = os.pipe()
        try:
            child = os.fork()
        except OSError:
            traceback.print_exc()
            for file in (asked, told, waiting, go):
                os.close(file)
            return 0  # nothing has begun: the gate starts a process by itself
        if not child:
            control.close()
            gate.close()
            os.close(go)
            _child(app, asked, told, waiting)
        for file in (asked, told, waiting):
            os.close(file)
        with suppress(OSError):  # the gate may be gone: then the child ends, and has begun nothing
            gate.sendall(child.to_bytes(4, "big"))
            os.write(go, b"g")
        os.close(go)
        code = _wait(child, gate)
        try:
            gate.sendall(code.to_bytes(4, "big", signed=True))
        except OSError:
            return 1
        return code


def _child(app: Any, asked: int, told: int, waiting: int) -> NoReturn:
    """What a child does once it is told to: `answer`, as if it had been started for it."""
    code = 1
    try:
        os.setpgid(0, 0)
        prctl = ctypes.CDLL(None).prctl
        prctl(_PDEATHSIG, signal.SIGKILL)
        prctl(_DUMPABLE, 1)
        if os.read(waiting, 1):  # nothing, where the gate or the parent is gone
            os.close(waiting)
            os.dup2(asked, 0)
            os.dup2(told, 1)
            os.close(asked)
            os.close(told)
            _draw_anew()
            answer(app)
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _draw_anew() -> None:
    """No two children draw the same from what their parent has drawn from, or may have."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _wait(child: int, gate: socket.socket) -> int:
    """Wait for a child's end, or make it, where the gate goes away; its whole process group ends with it."""
    ended = False
    while not ended:
        if select.select([gate], [], [], LOOK_SECONDS)[0]:  # the gate never writes: this is its end
            break
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    for number in (-child, child):
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_part(file: BinaryIO, limit: int = 1 << 31) -> bytes:
    """One part of a stream.

    Raises:
        ValueError: the stream ends before the part, or the part is longer than `limit` bytes.
    """
    head = file.read(8)
    size = int.from_bytes(head, "big")
    if len(head) != 8 or size > limit:
        raise ValueError(f"a part of {size} bytes" if len(head) == 8 else "the stream ended early")
    part = file.read(size)
    if len(part) != size:
        raise ValueError("the stream ended early")
    return part


def write_part(file: BinaryIO, part: bytes) -> None:
    """One part of a stream, after its length."""
    file.write(len(part).to_bytes(8, "big") + part)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        keep(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
