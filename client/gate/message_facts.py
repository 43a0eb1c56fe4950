"""What the audit log says of a message: what was asked, what it carried, why it was refused, what it spent."""

import hashlib
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from client.policy.leaving import reply_bytes
from common.messages.calibration import CALIBRATION
from common.messages.held_out import HELD_OUT
from common.messages.released_model import MODEL
from common.messages.round import EPSILON, ERROR, METRICS, SITE, Task
from common.messages.secure_aggregation import SECURE
from common.messages.survey import SURVEY
from common.messages.twins import TWINS, stage_of
from common.messages.weights import WEIGHTS
from common.text import printable

NAMES = 20  # of arrays, in a line of the audit log


def asked_facts(task: Task, asked: RecordDict) -> dict[str, Any]:
    """Which run, round and kind of request; of a stage its name."""
    calibration = asked.config_records.get(CALIBRATION)
    stage: dict[str, Any] = {"calibration": printable(str(calibration.get("stage")), 20)} if calibration is not None else {}
    stage |= {"survey": True} if SURVEY in asked else {}
    stage |= {"weights": printable(task.backbone, 64)} if WEIGHTS in asked else {}
    stage |= {"model": True} if MODEL in asked else {}
    stage |= {"held-out": True} if HELD_OUT in asked else {}
    stage |= {"twins": printable(stage_of(asked), 20)} if TWINS in asked else {}
    return {"run": task.run, "round": task.round, **stage}


def carried_facts(content: RecordDict) -> dict[str, Any]:
    """What a message carries: how many arrays and the first names, bytes, and a hash over all array bytes.

    Of what came from elsewhere no more is written than fits a short line.
    """
    digest, names = hashlib.sha256(), []
    for _, record in sorted(content.array_records.items()):
        for name, array in sorted(record.items()):
            names.append(printable(name, 80))
            digest.update(f"{name}\0{len(array.data)}\0".encode() + array.data)
    metrics, secure = content.metric_records.get(METRICS), content.config_records.get(SECURE)
    told = [printable(name, 64) for name in sorted(metrics)][:NAMES] if metrics else []
    facts: dict[str, Any] = {"bytes": reply_bytes(content), "arrays": names[:NAMES], "number": len(names), "metrics": told}
    stage = {"stage": printable(str(secure.get("stage")), 20)} if secure is not None else {}
    return facts | stage | ({"sha256": digest.hexdigest()} if names else {})


def refusal_of(content: RecordDict) -> str:
    """The sentence with which the bundle refused; "" where it answered."""
    return str(content.config_records.get(SITE, ConfigRecord()).get(ERROR) or "")


def spent_facts(content: RecordDict) -> dict[str, float]:
    """Epsilon of the run, as the reply tells it."""
    epsilon = content.config_records.get(SITE, ConfigRecord()).get(EPSILON)
    return {"epsilon": epsilon} if isinstance(epsilon, float) and 0 <= epsilon < float("inf") else {}
