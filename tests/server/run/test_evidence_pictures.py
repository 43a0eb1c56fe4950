"""Who is drawn, who may be, and under which name."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from server.run.evidence_pictures import draw_pictures, may_be_shown, most_telling

LABELS = np.array([0, 1, 0, -1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.6, 0.4], [0.7, 0.3]])  # rows 1 and 4 are wrong


def site(name="x", ids=("a", "b", "c", "d", "e")):
    images = np.random.default_rng(0).random((5, 2, 4, 32, 32)).astype(np.float16)
    return SiteData(name, ids, images, np.tile([True, False, True, True], (5, 1)), LABELS, "")


def test_the_wrong_come_first_then_the_least_certain():
    everyone = np.ones(5, bool)
    assert most_telling(LABELS, PROBABILITIES, everyone, 12) == [4, 1, 2, 3, 0]
    assert most_telling(LABELS, PROBABILITIES, everyone, 3) == [4, 1, 2]
    assert most_telling(LABELS, PROBABILITIES, np.array([True, True, False, False, False]), 3) == [1, 0]


@pytest.mark.parametrize(
    ("policy", "allowed"), [(None, True), ("", False), ("share_pictures = true", True), ("share_counts = true", False)]
)
def test_a_hospital_says_who_may_be_shown(tmp_path, policy, allowed):
    (tmp_path / "h").mkdir()
    if policy is not None:
        (tmp_path / "h" / "site.toml").write_text(f"[policy]\n{policy}\n")
    assert may_be_shown(tmp_path, ["h"], site()).tolist() == [allowed] * 5


def test_of_several_sites_each_for_itself(tmp_path):
    for folder, text in (("h", 'name = "bonn"\n[policy]\nshare_pictures = true'), ("k", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "site.toml").write_text(text)
    pooled = site(ids=("bonn/a", "k/a", "bonn/b", "k/b", "h/c"))
    assert may_be_shown(tmp_path, ["h", "k"], pooled).tolist() == [True, False, True, False, False]


def test_of_two_sites_with_one_name_the_stricter_decides(tmp_path):
    for folder, text in (("h", 'name = "k"'), ("k", "[policy]\nshare_pictures = true")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "site.toml").write_text(text)
    pooled = site(ids=("k/a", "k/b", "k/c", "k/d", "k/e"))
    for names in (["h", "k"], ["k", "h"]):
        assert not may_be_shown(tmp_path, names, pooled).any()


def test_pictures_are_written_under_names_that_say_no_id(tmp_path):
    section = {"backbone": "fedmri_vit_mini", "weights": "random"}
    config = config_from_table({"data": {"size": 32, "slices": 2, "classes": ["u", "v"]}, "model": section})
    model = build_model(config)
    patients = replace(site(), ids=("../../etc", "b", "c", "d", "e"))
    arguments = (tmp_path, TrainedModel(model, get_arrays(model), config), patients, PROBABILITIES)
    names = draw_pictures(*arguments, np.ones(5, bool), limit=2)
    assert names == {4: "patient-0004.png", 1: "patient-0001.png"}
    assert sorted(p.name for p in (tmp_path / "evidence").iterdir()) == sorted(names.values())
    assert Image.open(BytesIO((tmp_path / "evidence" / names[1]).read_bytes())).format == "PNG"
    assert draw_pictures(*arguments, np.zeros(5, bool)) == {}
