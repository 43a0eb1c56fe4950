"""Sums on the wire: read as they were written, or refused; in any shape, without unpickling."""

from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given

from common.config.run import config_from_table
from common.errors import FederationError, FedMRIError
from common.evaluation.calibration.calibration import TEMPERATURES, Scaling
from common.evaluation.calibration.offsets import STEPS, offset_sums
from common.evaluation.ood import score as ood
from common.evaluation.stages.candidates import MOST_CANDIDATES
from common.messages.calibration import (
    CALIBRATION,
    CHOOSE,
    CONFUSION,
    COUNT,
    FIT,
    HAVING,
    NLL,
    OFFSETS,
    OOD_SCORES,
    REFERENCE,
    SCORE,
    SCORES,
    SUMS,
    CalibrationRequest,
    apart,
    form,
    read_asked,
    read_candidates,
    read_reference,
    read_sums,
    smallest_cohort,
    together,
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
    labels, told = np.arange(12) % 3, np.random.default_rng(0).dirichlet([1, 1, 1], 12)
    sums |= {OFFSETS: offset_sums(labels, told).astype(np.float32), CONFUSION: 4 * np.eye(3, dtype=np.float32)}
    return sums | {HAVING: np.array([30, 20, 20, 13, 13], np.float32)} | changes


def read(sums, stage=FIT):
    return read_sums(write_sums(SiteReply("a", 3), sums), LIKE[stage])


def test_a_request_is_read_as_it_was_written() -> None:
    moments = pack_arrays(ood.moments_like(CONFIG))
    for asked, reference in (
        (CalibrationRequest(FIT), None),
        (CalibrationRequest(SCORE, Scaling(1.25, (0.5, -0.75, 0.25))), moments),
        (CalibrationRequest(SCORE, Scaling(float(TEMPERATURES[-1]))), None),
    ):
        content = write_asked(TASK, BEFORE, asked, reference)
        assert read_asked(content, CONFIG) == asked
        assert (read_reference(content, CONFIG) is None) is (reference is None)
        assert (REFERENCE in content) is (reference is not None)


def test_candidates_are_read_as_they_were_written_or_refused() -> None:
    asked = CalibrationRequest(CHOOSE, candidates=2)
    arrays = [{"head": np.array([k, -k], np.float32)} for k in (1, 2)]
    content = write_asked(TASK, BEFORE, asked, None, [pack_arrays(each) for each in arrays])
    assert read_asked(content, CONFIG) == asked
    template = {"head": np.zeros(2, np.float32)}
    assert [list(found["head"]) for found in read_candidates(content, asked, template)] == [[1, -1], [2, -2]]
    with pytest.raises(FederationError, match="candidate-2"):
        list(read_candidates(content, replace(asked, candidates=3), template))
    with pytest.raises(FederationError):
        list(read_candidates(content, asked, {"head": np.zeros(3, np.float32)}))


def test_the_candidates_sums_are_each_held_to_what_patients_can_have() -> None:
    like = form(CalibrationRequest(CHOOSE, candidates=2), CONFIG, scored=False)
    one = {name: fit()[name] for name in (NLL, COUNT, OFFSETS, CONFUSION)}
    assert {name.partition(".")[2] for name in like} == set(one)
    good = together([one, one])
    assert [set(part) for part in apart(good)] == [set(one)] * 2
    read_sums(write_sums(SiteReply("a", 3), good), like)
    assert smallest_cohort(good) == 12
    others = one | {CONFUSION: np.diag([12, 0, 0]).astype(np.float32)}
    for wrong in (one | {NLL: -one[NLL]}, one | {OFFSETS: spiked(9.0)}, one | {COUNT: one[COUNT] + 1}, others):
        with pytest.raises(FederationError):
            read_sums(write_sums(SiteReply("a", 3), together([one, wrong])), like)
    few = {**one, COUNT: np.array([2], np.float32), CONFUSION: np.diag([2, 0, 0]).astype(np.float32)}
    assert smallest_cohort(together([one, few])) == 2


def test_the_form_has_just_what_the_stage_tells() -> None:
    assert set(LIKE[FIT]) == {NLL, COUNT, OFFSETS, CONFUSION, *ood.NAMES}
    assert set(LIKE[SCORE]) == {SCORES, CONFUSION, OOD_SCORES}
    assert set(form(CalibrationRequest(SCORE), CONFIG, scored=False)) == {SCORES, CONFUSION}
    masked = replace(CONFIG, secure=replace(CONFIG.secure, enabled=True))  # offsets are off: nothing of theirs is asked for
    assert set(form(CalibrationRequest(FIT), masked, scored=True)) == {NLL, COUNT, *ood.NAMES}
    assert set(form(CalibrationRequest(SCORE), masked, scored=True)) == {SCORES, OOD_SCORES}


@pytest.mark.parametrize(
    "fields",
    [
        {"stage": "keys", "temperature": 1.0},
        {"temperature": 1.0},
        {"stage": FIT, "temperature": 0.0},
        {"stage": FIT, "temperature": float("nan")},
        {"stage": SCORE, "temperature": 1},
        {"stage": SCORE, "temperature": 1e9},
        {"stage": SCORE, "temperature": 1.0, "offsets": [0.0, 0.0]},
        {"stage": SCORE, "temperature": 1.0, "offsets": [0.0, 0.0, float("nan")]},
        {"stage": SCORE, "temperature": 1.0, "offsets": [0.0, 0.0, 99.0]},
        {"stage": SCORE, "temperature": 1.0, "offsets": [1, 1, 1]},
        {"stage": SCORE, "temperature": 1.0, "offsets": "none"},
        {"stage": FIT, "temperature": 1.0, "candidates": 1},
        {"stage": CHOOSE, "temperature": 1.0},
        {"stage": CHOOSE, "temperature": 1.0, "candidates": MOST_CANDIDATES + 1},
        {"stage": CHOOSE, "temperature": 1.0, "candidates": 2.0},
    ],
)
def test_a_request_of_no_sense_is_refused(fields) -> None:
    with pytest.raises(FederationError):
        read_asked(RecordDict({CALIBRATION: ConfigRecord(fields)}), CONFIG)


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


def spiked(by):
    losses = fit()[OFFSETS].copy() + 10
    losses[8, 12, 12] += by
    return losses


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
        {CONFUSION: 5 * np.eye(3, dtype=np.float32)},  # of other patients than the losses
        {CONFUSION: np.full((3, 3), 12 / 9, np.float32)},
        {OFFSETS: -LIKE[FIT][OFFSETS] - 1},
        {OFFSETS: LIKE[FIT][OFFSETS] + np.nan},
        {OFFSETS: LIKE[FIT][OFFSETS] + 1e9},
        {OFFSETS: spiked(100.0)},  # one point pulled up, or down: no patients' losses jump or bend so
        {OFFSETS: spiked(-5.0)},
        {OFFSETS: np.broadcast_to(8.0 * 12 * np.abs(STEPS), LIKE[FIT][OFFSETS].shape).astype(np.float32)},  # steeper than offsets
        {HAVING: np.zeros(5, np.float32), "ood.sum": np.ones_like(LIKE[FIT]["ood.sum"])},
        {HAVING: np.array([30, 0, 30, 9, 9], np.float32), "ood.outer": np.ones_like(LIKE[FIT]["ood.outer"])},
    ],
)
def test_sums_that_no_patients_have_are_refused(changes) -> None:
    with pytest.raises(FederationError):
        read(fit(**changes))


def test_histograms_hold_whole_patients() -> None:
    counts = LIKE[SCORE] | {SCORES: np.eye(1, LIKE[SCORE][SCORES].size, dtype=np.float32)[0]}
    counts[CONFUSION] = np.eye(3, dtype=np.float32) * [1, 0, 0]
    counts = {name: value.astype(np.float32) for name, value in counts.items()}
    assert read(counts, SCORE)[SCORES].sum() == 1
    for name in (SCORES, OOD_SCORES, CONFUSION):
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
        for act in (
            lambda c: read_asked(c, CONFIG),
            lambda c: read_reference(c, CONFIG),
            *(lambda c, s=s: read_sums(c, LIKE[s]) for s in LIKE),
        ):
            with suppress(FedMRIError):
                act(content)


def test_records_of_another_kind_are_refused() -> None:
    for wrong in (ArrayRecord(), MetricRecord({"stage": 1})):
        with pytest.raises(FederationError):
            read_asked(RecordDict({CALIBRATION: wrong}), CONFIG)
    with pytest.raises(FederationError):
        read_sums(RecordDict({SUMS: ConfigRecord({"x": 1})}), LIKE[FIT])
    with pytest.raises(FederationError):
        read_reference(RecordDict({REFERENCE: ConfigRecord({"x": 1})}), CONFIG)
