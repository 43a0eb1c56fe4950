"""The message of a survey: one request, one reply, before anything trains.

    request   config as for a round; survey: ConfigRecord {}   no arrays
    reply     survey: ConfigRecord {answer: JSON}              beside `metrics` and `site` of a round's reply

Nothing is unpickled.
"""

import json
import math
import re
from dataclasses import asdict
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from common.config.standard import PERCENTILES
from common.data.survey import LANDMARKS, TOPICS, Answer
from common.errors import FederationError
from common.messages.round import MAX_PATIENTS, SiteReply, Task, write_status, write_task

SURVEY, ANSWER = "survey", "answer"
MAX_GROUPS = 500
MAX_JSON = 200_000
GROUP = re.compile(r"[A-Za-z0-9 .,+_-]{1,80}")  # a group's name: no sentence, no path


def write_survey(task: Task) -> RecordDict:
    """The content of a request."""
    content = write_task(task, None)
    content[SURVEY] = ConfigRecord({"asked": True})
    return content


def write_answer(reply: SiteReply, answer: Answer) -> RecordDict:
    """A site's reply."""
    content = write_status(reply)
    content[SURVEY] = ConfigRecord({ANSWER: json.dumps(asdict(answer), sort_keys=True)})
    return content


def read_answer(content: RecordDict) -> Answer:
    """The answer of a reply.

    Raises:
        FederationError: of another form, or counts that are not in steps of the minimum.
    """
    record = content.get(SURVEY)
    text = record.get(ANSWER) if isinstance(record, ConfigRecord) and set(record) == {ANSWER} else None
    if not isinstance(text, str) or len(text) > MAX_JSON:
        raise _wrong("expected an answer")
    try:
        found = json.loads(text)
        answer = Answer(
            least=_whole(found.pop("least"), 1),
            patients=_whole(found.pop("patients"), 0),
            topics={_topic(name): _groups(groups) for name, groups in dict(found.pop("topics")).items()},
            landmarks={_group(name): _values(values, len(LANDMARKS)) for name, values in dict(found.pop("landmarks")).items()},
            scales={_group(name): _scale(values) for name, values in dict(found.pop("scales", {})).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong("the answer cannot be read") from error
    numbers = [answer.patients, *(count for groups in answer.topics.values() for count in groups.values())]
    if found or any(number % answer.least or number > answer.patients for number in numbers):
        raise _wrong("expected counts in steps of the minimum, none above that of all patients")
    return answer


def _whole(value: Any, low: int) -> int:
    if type(value) is not int or not low <= value <= MAX_PATIENTS:
        raise ValueError("no count")
    return value


def _topic(name: str) -> str:
    if name not in TOPICS:
        raise ValueError("no topic")
    return name


def _group(name: str) -> str:
    if not GROUP.fullmatch(name):
        raise ValueError("no group")
    return name


def _groups(groups: Any) -> dict[str, int]:
    if len(groups) > MAX_GROUPS:
        raise ValueError("too many groups")
    return {_group(name): _whole(count, 0) for name, count in dict(groups).items()}


def _scale(values: Any) -> tuple[float, ...]:
    marks = _values(values, len(PERCENTILES))
    if list(marks) != sorted(marks) or marks[0] < 0 or marks[-1] > 1:
        raise ValueError("no landmarks of a scale")
    return marks


def _values(values: Any, many: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != many or not all(math.isfinite(number) for number in numbers):
        raise ValueError("no landmarks")
    return numbers


def _wrong(what: str) -> FederationError:
    return FederationError(f"Survey: {what}.")
