from dataclasses import replace

import numpy as np
import pytest

from common.config.run import RunConfig
from common.data.cases import read_site
from common.data.gate.finding import Finding, Level
from common.data.survey import (
    AGES,
    CLASSES,
    FINDINGS,
    INTENSITIES,
    MODALITIES,
    SCANNER,
    SPACING,
    TOPICS,
    Facts,
    answer,
    site_facts,
)


def somebody(number: int, **known) -> Facts:
    usual = Facts(f"sub-{number}", "t1+flair", "a", "40 to 59", "3 to 5 mm", "1 x 1 x 4 mm, 20 x 24", (), {"t1": (1.0, 2.0, 3.0)})
    return replace(usual, **known)


def test_everybody_is_counted_once_a_topic(write_site, run):
    patients = {"sub-1": ["t1", "flair", "mask"], "sub-2": ["t1"], "sub-3": ["flair"]}
    site = read_site(write_site("one", patients, {"sub-1": "a", "sub-2": "b", "sub-3": "n/a"}), run)
    broken = next((site.root / "sub-3").rglob("*.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:100])
    site = replace(site, findings=(Finding("sub-2", "twin", Level.ERROR, "", "x", "y", "z"),))
    told = answer(site_facts(site, run), run, 1, TOPICS)
    having = {topic: {group: count for group, count in groups.items() if count} for topic, groups in told.topics.items()}
    assert told.patients == 3
    assert having[MODALITIES] == {"t1+flair": 1, "t1": 1, "flair": 1}
    assert having[CLASSES] == {"a": 1, "b": 1, "unlabelled": 1}
    assert having[AGES] == {"unknown": 3}
    assert having[SPACING] == {"under 1.5 mm": 2, "unknown": 1}
    assert having[SCANNER] == {"1 x 1 x 1 mm, 20 x 24": 2, "unknown": 1}
    assert having[FINDINGS]["twin"] == 1
    assert having[FINDINGS]["file-truncated"] == 1
    assert set(told.landmarks) == {"t1", "flair"}
    assert told.landmarks["t1"][1] == pytest.approx(125, rel=0.1)  # uniform from 50 to 200


def test_only_the_topics_that_may_be_told_are_told_in_steps_of_the_minimum(run: RunConfig):
    facts = [somebody(i, label="a" if i < 13 else "b", scanner=f"grid {i % 5}") for i in range(17)]
    told = answer(facts, run, 5, [CLASSES, SCANNER])
    assert told.patients == 15
    assert told.topics == {CLASSES: {"a": 10, "b": 0, "unlabelled": 0}, SCANNER: {}}  # grids of 3 and 4 are not even named
    assert told.landmarks == {}
    assert answer(facts, run, 5, [INTENSITIES]).landmarks == {"t1": (1.0, 2.0, 3.0)}
    few = [replace(one, intensities={} if i else {"t1": (9.0, 9.0, 9.0)}) for i, one in enumerate(facts)]
    assert answer(few, run, 5, [INTENSITIES]).landmarks == {}
    assert answer(facts[:4], run, 5, TOPICS).landmarks == {}


def test_landmarks_are_medians_of_two_digits(run: RunConfig):
    values = np.random.default_rng(0).uniform(100, 900, 11)
    facts = [somebody(i, intensities={"t1": (value, value, value)}) for i, value in enumerate(values)]
    (middle, *_) = answer(facts, run, 5, TOPICS).landmarks["t1"]
    assert middle == float(f"{np.median(values):.2g}")
