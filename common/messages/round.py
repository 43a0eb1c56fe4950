"""The messages of a training round: one request and one reply, as Flower records.

    request   arrays: ArrayRecord   the global trained arrays
              config: ConfigRecord  the fields of `Task`
    reply     change: ArrayRecord   trained arrays - global arrays (`common.messages.update`); absent when it failed
              metrics: MetricRecord num-examples, labelled, round, and the loss terms where the site's policy lets them go
              site: ConfigRecord    name, error ("" on success), for-good, counts-shared, epsilon, data

Whatever is read here came over a wire: names, types, shapes and sizes are checked before anything is decoded, and nothing is
unpickled.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib import format as npy

from common.errors import FederationError
from common.messages.update import Update
from common.messages.wire import FLOAT32, Wire
from common.models.arrays import Arrays, check_arrays, trained_at_sites
from common.text import printable

ARRAYS, CONFIG, CHANGE, METRICS, SITE = "arrays", "config", "change", "metrics", "site"
NUM_EXAMPLES, LABELLED, ROUND = "num-examples", "labelled", "round"
NAME, ERROR, FOR_GOOD, COUNTS_SHARED, EPSILON = "name", "error", "for-good", "counts-shared", "epsilon"
DATA = "data"

HASH = re.compile("[0-9a-f]{64}")
MAX_TEXT = 300  # characters of an error
MAX_NAME = 120
MAX_CONFIG = 100_000
MAX_METRICS = 64
MAX_PATIENTS = 10_000_000

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


@dataclass(frozen=True)
class Task:
    """A site's task in one round."""

    round: int  # from 1
    config: str  # the whole RunConfig as JSON
    code: str  # hash that the site's own code must have
    backbone: str  # SHA-256 that the site's own backbone weights must have
    run: str = ""  # what the coordinator calls the run; the site's privacy ledger notes it
    site: str = ""  # simulation only: the site folder that this node stands for; "" at a hospital
    data: str = ""  # simulation only: the folder that holds the site folders
    cache: str = ""  # simulation only: the slice cache


@dataclass(frozen=True)
class SiteReply:
    """A site's reply, checked. `update` is empty when `error` is not.

    `patients` and `labelled` are 1 where `counts_shared` is false: the site's policy keeps its numbers. `epsilon` is what the
    run has charged at the site, at the run's delta: how often it was asked decides it, and no patient. Below 0: not private.
    """

    site: str
    round: int
    error: str = ""
    update: Update = field(default_factory=Update)
    patients: int = 1
    labelled: int = 1
    counts_shared: bool = False
    epsilon: float = -1.0
    metrics: dict[str, float] = field(default_factory=dict)
    data: str = ""  # keyed hash of what the site trained on (`client.round.trained_on`); "": it does not leave
    for_good: bool = False  # of an error: the site says that whoever asks again in this run is refused again

    def weight(self, unlabelled_weight: float) -> float:
        """In the mean over sites: its labelled patients, and `unlabelled_weight` for each of the others."""
        return self.labelled + unlabelled_weight * (self.patients - self.labelled)


def write_task(task: Task, arrays: ArrayRecord | None) -> RecordDict:
    """The content of a request; the packed arrays, where there are any, are shared between the sites' requests."""
    config = ConfigRecord({f.name: getattr(task, f.name) for f in fields(task)})
    return RecordDict({ARRAYS: arrays, CONFIG: config} if arrays is not None else {CONFIG: config})


def read_task(content: RecordDict) -> Task:
    """Read a request at the site; the arrays stay packed until the site's own model is there to check them against.

    Raises:
        FederationError: a record or field that is missing, of another type, or too long.
    """
    record = _record(content, CONFIG, ConfigRecord)
    return Task(
        round=_integer(record, "round", 1, 10_000_000),
        config=_text(record, "config", MAX_CONFIG),
        code=_text(record, "code", MAX_NAME),
        backbone=_text(record, "backbone", MAX_NAME),
        run=_text(record, "run", MAX_NAME),
        site=_text(record, "site", MAX_NAME),
        data=_text(record, "data", 4096),
        cache=_text(record, "cache", 4096),
    )


def write_reply(reply: SiteReply, wire: Wire = FLOAT32) -> RecordDict:
    """The content of a reply, success or failure; its change in the run's form (`federation.wire`)."""
    content = write_status(reply)
    if not reply.error:
        content[CHANGE] = pack_arrays(reply.update.change, wire)
    return content


def write_status(reply: SiteReply) -> RecordDict:
    """A reply without its change."""
    metrics: dict[str, Any] = {NUM_EXAMPLES: reply.patients, LABELLED: reply.labelled, ROUND: reply.round}
    metrics |= {name: float(value) for name, value in reply.metrics.items() if math.isfinite(value)}
    site: dict[str, Any] = {
        NAME: reply.site,
        ERROR: printable(reply.error, MAX_TEXT),
        COUNTS_SHARED: reply.counts_shared,
        EPSILON: reply.epsilon,
    }
    site |= {DATA: reply.data} if reply.data else {}
    site |= {FOR_GOOD: True} if reply.for_good else {}
    return RecordDict({METRICS: MetricRecord(metrics), SITE: ConfigRecord(site)})


def read_reply(content: RecordDict, template: Arrays, wire: Wire = FLOAT32) -> SiteReply:
    """Read and check a site's reply.

    Args:
        content: what came.
        template: the global arrays, whose names, shapes and type the change must have; residuals do not come back.
        wire: the form that the run's changes travel in; another one is refused.

    Raises:
        FederationError: says what is wrong with it.
    """
    reply = read_status(content)
    return reply if reply.error else replace(reply, update=read_update(content, template, wire))


def read_update(content: RecordDict, template: Arrays, wire: Wire = FLOAT32) -> Update:
    """The update of a reply; see `read_reply` for the errors."""
    return Update(unpack_arrays(_record(content, CHANGE, ArrayRecord), trained_at_sites(template), wire))


def read_status(content: RecordDict) -> SiteReply:
    """Read a reply without its change; see `read_reply` for the errors."""
    site, metrics = _record(content, SITE, ConfigRecord), _record(content, METRICS, MetricRecord)
    patients = _integer(metrics, NUM_EXAMPLES, 1, MAX_PATIENTS)
    return SiteReply(
        site=printable(_text(site, NAME, MAX_NAME), MAX_NAME),
        round=_integer(metrics, ROUND, 1, 10_000_000),
        error=printable(_text(site, ERROR, 100 * MAX_TEXT), MAX_TEXT),
        patients=patients,
        labelled=_integer(metrics, LABELLED, 0, patients),
        counts_shared=site.get(COUNTS_SHARED) is True,
        epsilon=_epsilon(site),
        metrics=_loss_terms(metrics),
        for_good=site.get(FOR_GOOD) is True,
        data=data_hash(site),
    )


def pack_arrays(arrays: Arrays, wire: Wire = FLOAT32) -> ArrayRecord:
    """Named float32 arrays as a Flower record, sorted by name, in the form that they travel in."""
    return ArrayRecord({name: Array(np.asarray(wire.encode(arrays[name]), order="C")) for name in sorted(arrays)})


def unpack_arrays(record: ArrayRecord, template: Arrays, wire: Wire = FLOAT32) -> Arrays:
    """The record's arrays, if they are just like `template`, from the form that they travel in.

    The header of each array is compared before its data are read: one that announces terabytes costs nothing.

    Raises:
        FederationError: names the first array that is wrong.
    """
    unknown, missing = sorted(record.keys() - template.keys()), sorted(template.keys() - record.keys())
    if unknown or missing:
        shown = [printable(name, 80) for name in unknown[:3]]
        raise FederationError(f"Array names differ: missing {missing[:3]}, unknown {shown}.")
    shapes = {name: template[name].shape for name in sorted(template)}
    arrays = {
        name: wire.decode(unpack_array(name, record[name], wire.shape(shape), wire.dtype), shape)
        for name, shape in shapes.items()
    }
    check_arrays(arrays, template)
    return arrays


def record_bytes(record: ArrayRecord | None) -> int:
    """Bytes of the packed arrays: what a round moves, without Flower's envelope of about a kilobyte."""
    return sum(len(array.data) for array in record.values()) if record else 0


def unpack_array(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """One array of a record, after its .npy header was found to be of `shape` and `dtype`.

    Raises:
        FederationError: it is another.
    """
    wanted = np.dtype(dtype)
    expected = int(np.prod(shape, dtype=np.int64)) * wanted.itemsize
    if array.stype != "numpy.ndarray" or not expected <= len(array.data) <= expected + 4096:
        raise FederationError(f"Array {name}: expected {wanted} {shape} ({expected} bytes), got {len(array.data)} bytes.")
    buffer = BytesIO(array.data)
    try:
        if npy.read_magic(buffer) != (1, 0):
            raise ValueError("another .npy version")
        came, fortran, kind = npy.read_array_header_1_0(buffer)
    except (
        ValueError,
        SyntaxError,
        TypeError,
        RecursionError,
        MemoryError,
        TokenError,
    ) as error:  # all that numpy's reader raises
        raise FederationError(f"Array {name}: no readable .npy header.") from error
    data = array.data[buffer.tell() :]
    if came != shape or kind != wanted or fortran or len(data) != expected:
        raise FederationError(f"Array {name}: expected {wanted} {shape}, got {kind} {str(came)[:80]}.")
    return np.frombuffer(data, dtype=wanted).reshape(shape).copy()


def data_hash(record: Mapping[str, Any]) -> str:
    """The hash of what a site trained on; "" where the record has none."""
    value = record.get(DATA)
    return value if isinstance(value, str) and HASH.fullmatch(value) else ""


def _epsilon(record: Mapping[str, Any]) -> float:
    """The epsilon that the site reports; below 0 where it reports nothing usable. Infinite is valid: no noise, no bound."""
    value = record.get(EPSILON, -1.0)
    return value if isinstance(value, float) and value >= 0 else -1.0


def _loss_terms(record: MetricRecord) -> dict[str, float]:
    """The metrics beyond the fixed ones: few, finite, single numbers under short names."""
    terms = {k: v for k, v in record.items() if k not in (NUM_EXAMPLES, LABELLED, ROUND)}
    if len(terms) > MAX_METRICS:
        raise FederationError(f"The reply has {len(terms)} metrics; at most {MAX_METRICS} are read.")
    return {
        printable(name, 64): float(value)
        for name, value in sorted(terms.items())
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _record(content: RecordDict, name: str, kind: type[Record]) -> Record:
    """The record `name`, if it is of `kind`."""
    record = content.get(name)
    if not isinstance(record, kind):
        raise FederationError(f"The message has no {kind.__name__} '{name}'.")
    return record


def _text(record: Mapping[str, Any], name: str, limit: int) -> str:
    """A text field of at most `limit` characters."""
    value = record.get(name)
    if not isinstance(value, str) or len(value) > limit:
        raise FederationError(f"Field '{name}' of the message: expected a text of at most {limit} characters.")
    return value


def _integer(record: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """A whole-number field from `low` to `high`."""
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FederationError(f"Field '{name}' of the message: expected a whole number from {low} to {high}.")
    return value
