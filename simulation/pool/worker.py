"""One resident worker: takes requests one by one, runs the ClientApp, sends back the reply and what the site remembers.

request   message (Flower's protobuf) | the site's memory (RecordDict, protobuf; empty: none)
reply     the same two
"""

import logging
import random
from multiprocessing.connection import Connection

import numpy as np
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto  # pylint: disable=E0611
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto  # pylint: disable=E0611

from client.app import app
from simulation.gpus import take_gpu

NODE_KEYS = ("partition-id", "num-partitions")  # as Flower's own simulation names them

logger = logging.getLogger("fedmri.client")


def serve(connection: Connection, slot: int, gpus: int) -> None:
    """Answer until the other end is closed.

    Args:
        connection: to the run's server.
        slot: which of the workers this is; GPUs are dealt out by it.
        gpus: of this machine.
    """
    take_gpu(slot, gpus)
    _own_chance()
    while True:
        try:
            request, memory = connection.recv_bytes(), connection.recv_bytes()
        except EOFError:
            return
        reply, memory = answer(request, memory)
        connection.send_bytes(reply)
        connection.send_bytes(memory)


def answer(request: bytes, memory: bytes) -> tuple[bytes, bytes]:
    """The reply to one request, and the site's memory after it."""
    message, state = read_message(request), read_memory(memory)
    node = message.metadata.dst_node_id
    context = Context(message.metadata.run_id, node, dict.fromkeys(NODE_KEYS, node), state, {})
    try:
        reply = app(message, context)
    except Exception as error:
        logger.exception("The ClientApp raised an exception.")
        reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message)
    return write_message(reply), write_memory(context.state)


def write_message(message: Message) -> bytes:
    """As it goes over the wire of a deployment."""
    return bytes(message_to_proto(message).SerializeToString())


def read_message(data: bytes) -> Message:
    """The message that `write_message` wrote."""
    return message_from_proto(MessageProto.FromString(data))


def write_memory(state: RecordDict) -> bytes:
    """What a site remembers from one message to the next."""
    return bytes(recorddict_to_proto(state).SerializeToString())


def read_memory(data: bytes) -> RecordDict:
    """What `write_memory` wrote."""
    return recorddict_from_proto(RecordDictProto.FromString(data))


def _own_chance() -> None:
    """What was forked must not draw what its siblings draw. (Training draws from generators of its own in any case.)"""
    random.seed()
    np.random.seed()
    torch.seed()
