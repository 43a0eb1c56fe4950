"""Sums on the wire: read as they were written, or refused; in any shape, without unpickling."""

from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given

from common.config.run import config_from_table
from common.errors import FederationError, FedMRIError
from common.evaluation.calibration.calibration import TEMPERATURES
from common.evaluation.ood import score as ood
from common.messages.calibration import (
    CALIBRATION,
    COUNT,
    FIT,
    HAVING,
    NLL,
    OOD_SCORES,
    REFERENCE,
    SCORE,
    SCORES,
    SUMS,
    CalibrationRequest,
    form,
    read_asked,
    read_reference,
    read_sums,
    smallest_cohort,
    write_asked,
    write_sums,
)
from common.messages.round import SiteReply, Task, pack_arrays, read_status
from tests.damage import MANY, NUMBERS, WORDS, made, mutated, nothing_unpickled

CONFIG = config_from_table({"data": {"modalities": ["t1", "flair"]}, "evaluation": {"holdout": 0.2}})
TASK = Task(3, CONFIG.to_json(), "code", "backbone")
BEFORE = pack_arrays({"head": np.zeros(2, np.float32)})
LIKE = {asked: form(CalibrationRequest(asked), CONFIG, scored=True) for asked in (FIT, SCORE)}


def fit(**changes):
    sums = LIKE[FIT] | {COUNT: np.array([12], np.float32), NLL: np.full(len(TEMPERATURES), 7.5, np.float32)}
    return sums | {HAVING: np.array([30, 20, 20, 13, 13], np.float32)} | changes


def read(sums, stage=FIT):
    return read_sums(write_sums(SiteReply("a", 3), sums), LIKE[stage])


def test_a_request_is_read_as_it_was_written() -> None:
    moments = pack_arrays(ood.moments_like(CONFIG))
    for asked, reference in (
        (CalibrationRequest(FIT), None),
        (CalibrationRequest(SCORE, 1.25), moments),
        (CalibrationRequest(SCORE, float(TEMPERATURES[-1])), None),
    ):
        content = write_asked(TASK, BEFORE, asked, reference)
        assert read_asked(content) == asked
        assert (read_reference(content, CONFIG) is None) is (reference is None)
        assert (REFERENCE in content) is (reference is not None)


def test_the_form_has_just_what_the_stage_tells() -> None:
    assert set(LIKE[FIT]) == {NLL, COUNT, *ood.NAMES}
    assert set(LIKE[SCORE]) == {SCORES, OOD_SCORES}
    assert set(form(CalibrationRequest(SCORE), CONFIG, scored=False)) == {SCORES}


@pytest.mark.parametrize(
    "fields",
    [
        {"stage": "keys", "temperature": 1.0},
        {"temperature": 1.0},
        {"stage": FIT, "temperature": 0.0},
        {"stage": FIT, "temperature": float("nan")},
        {"stage": SCORE, "temperature": 1},
        {"stage": SCORE, "temperature": 1e9},
    ],
)
def test_a_request_of_no_sense_is_refused(fields) -> None:
    with pytest.raises(FederationError):
        read_asked(RecordDict({CALIBRATION: ConfigRecord(fields)}))


def test_a_reference_of_another_form_is_refused() -> None:
    for arrays in ({"ood.count": np.zeros(2, np.float32)}, ood.moments_like(CONFIG) | {"x": np.zeros(1, np.float32)}):
        with pytest.raises(FederationError):
            read_reference(write_asked(TASK, BEFORE, CalibrationRequest(SCORE), pack_arrays(arrays)), CONFIG)
    bad = ood.moments_like(CONFIG) | {"ood.count": np.array([1, 1, np.inf], np.float32)}
    with pytest.raises(FederationError):
        read_reference(write_asked(TASK, BEFORE, CalibrationRequest(SCORE), pack_arrays(bad)), CONFIG)


def test_sums_are_read_as_they_were_written() -> None:
    content = write_sums(SiteReply("a", 3, patients=50, labelled=40, counts_shared=True), fit())
    found = read_sums(content, LIKE[FIT])
    assert all(np.array_equal(found[name], value) for name, value in fit().items())
    assert read_status(content).patients == 50


@pytest.mark.parametrize(
    "changes",
    [
        {NLL: np.full(len(TEMPERATURES), np.nan, np.float32)},
        {NLL: np.full(len(TEMPERATURES), -1, np.float32)},
        {NLL: np.full(len(TEMPERATURES), 1e9, np.float32)},
        {NLL: np.zeros(3, np.float32)},
        {COUNT: np.array([-1], np.float32)},
        {COUNT: np.array([1.5], np.float32)},
        {COUNT: np.array([1e9], np.float32)},
        {COUNT: np.array([0], np.float32)},  # losses of nobody
        {COUNT: np.array([12.0])},
        {HAVING: np.array([-3, 1, 1, 1, 1], np.float32)},
        {"ood.image": np.zeros(1, np.float32)},
        {HAVING: np.zeros(5, np.float32), "ood.sum": np.ones_like(LIKE[FIT]["ood.sum"])},
        {HAVING: np.array([30, 0, 30, 9, 9], np.float32), "ood.outer": np.ones_like(LIKE[FIT]["ood.outer"])},
    ],
)
def test_sums_that_no_patients_have_are_refused(changes) -> None:
    with pytest.raises(FederationError):
        read(fit(**changes))


def test_histograms_hold_whole_patients() -> None:
    counts = LIKE[SCORE] | {SCORES: np.eye(1, LIKE[SCORE][SCORES].size, dtype=np.float32)[0]}
    assert read(counts, SCORE)[SCORES].sum() == 1
    for name in (SCORES, OOD_SCORES):
        for wrong in (-1, 0.5, np.inf):
            with pytest.raises(FederationError):
                read(counts | {name: np.full_like(counts[name], wrong)}, SCORE)


def test_the_smallest_group_of_any_sum_is_found() -> None:
    assert smallest_cohort(fit()) == 12
    assert smallest_cohort(fit(**{HAVING: np.array([30, 9, 4, 9, 9], np.float32)})) == 4
    assert smallest_cohort(fit(**{HAVING: np.array([30, 0, 0, 0, 0], np.float32)})) == 12
    assert smallest_cohort(LIKE[SCORE]) == float("inf")


def content(random: Random) -> RecordDict:
    """Requests and replies with some parts changed, under another's name, or left out."""
    good = fit() if random.random() < 0.5 else LIKE[SCORE]
    packed = pack_arrays(good)
    for name in list(packed):
        draw = random.random()
        if draw < 0.15:
            data = mutated(random, packed[name].data, (b"(" * 2000, b"O", b"{", b"9" * 400))
            packed[name] = Array(dtype="float32", shape=(random.choice((1, -1, 2**40)),), stype="numpy.ndarray", data=data)
        elif draw < 0.25:
            packed[random.choice(WORDS[:4]) + "x"] = packed.pop(name)
    asked = ConfigRecord()
    for name, value in (("stage", random.choice((FIT, SCORE, *WORDS[:4]))), ("temperature", random.choice((1.0, *NUMBERS)))):
        with suppress(TypeError, ValueError):
            asked[name] = value
    parts: list[Any] = [
        packed,
        pack_arrays(ood.moments_like(CONFIG)) if random.random() < 0.5 else packed,
        asked,
        MetricRecord({"n": 1}),
    ]
    if random.random() < 0.2:
        random.shuffle(parts)
    names = (SUMS, REFERENCE, CALIBRATION, "metrics")
    return RecordDict({name: part for name, part in zip(names, parts, strict=True) if random.random() < 0.95})


@pytest.mark.slow
@MANY
@given(made(content))
def test_any_content(content) -> None:
    with nothing_unpickled():
        for act in (read_asked, lambda c: read_reference(c, CONFIG), *(lambda c, s=s: read_sums(c, LIKE[s]) for s in LIKE)):
            with suppress(FedMRIError):
                act(content)


def test_records_of_another_kind_are_refused() -> None:
    for wrong in (ArrayRecord(), MetricRecord({"stage": 1})):
        with pytest.raises(FederationError):
            read_asked(RecordDict({CALIBRATION: wrong}))
    with pytest.raises(FederationError):
        read_sums(RecordDict({SUMS: ConfigRecord({"x": 1})}), LIKE[FIT])
    with pytest.raises(FederationError):
        read_reference(RecordDict({REFERENCE: ConfigRecord({"x": 1})}), CONFIG)
