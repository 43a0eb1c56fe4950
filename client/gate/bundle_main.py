"""Runs an approved bundle in a process of its own: a message comes in on stdin, its reply's content leaves on stdout.

This file is started by its path, by the gate, and imports nothing of ours: `client` and `common` are the bundle's here. What the
bundle answers, the gate looks at before it leaves.

    stdin    message, context (Flower's protobuf, each after its length in 8 bytes)
    stdout   content of the reply, context
"""

import os
import sys
import tomllib
from pathlib import Path
from typing import BinaryIO


def main(folder: str) -> None:
    """Answer one message with the ClientApp of the bundle that is unpacked in `folder`."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the bundle prints goes to the site's log, not into the answer
    sys.path[0] = folder  # in the place of this file's own folder

    from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, recorddict_to_proto  # noqa: PLC0415
    from flwr.proto.message_pb2 import Context, Message  # noqa: PLC0415
    from flwr.supercore.object_ref import load_app  # noqa: PLC0415
    from flwr.supercore.task_identity import TaskIdentity  # noqa: PLC0415

    message = message_from_proto(Message.FromString(read_part(sys.stdin.buffer)))
    context = context_from_proto(Context.FromString(read_part(sys.stdin.buffer)))
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, context.run_id, context.node_id
    table = tomllib.loads((Path(folder) / "pyproject.toml").read_text(encoding="utf-8"))
    app = load_app(table["tool"]["flwr"]["app"]["components"]["clientapp"], RuntimeError, folder)
    reply = app(message=message, context=context)
    write_part(out, recorddict_to_proto(reply.content).SerializeToString())
    write_part(out, context_to_proto(context).SerializeToString())
    out.close()


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
    main(sys.argv[1])
