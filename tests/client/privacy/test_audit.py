"""The site's own audit, on the code that trains: it passes as it is, and a planted fault makes it fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client.privacy import audit
from client.privacy.audit import audit_privacy, membership_auc
from common.adapters.lora import LoRA
from common.config.run import config_from_table
from common.data.dataset import SiteData
from common.errors import DataError
from common.models.arrays import get_arrays, save_arrays
from common.models.build import build_model
from common.models.multimodal import MultiModalViT
from common.privacy.audit import CanaryAudit
from common.privacy.gradients import Parameters
from common.training.round import Point

WEIGHTS = {"consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
CONFIG = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {
            "backbone": "fedmri_vit_mini",
            "weights": "random",
            "adapter": {"rank": 2},
            "head_hidden": 8,
            "head_bottleneck": 4,
        },
        "objective": {"local_crops": 0, "terms": {name: {"weight": weight} for name, weight in WEIGHTS.items()}},
        "training": {"precision": "fp32", "slices_per_step": 2},
        "privacy": {"enabled": True, "max_grad_norm": 0.1},
    }
)


def patients(seed: int = 0) -> SiteData:
    rng = np.random.default_rng(seed)
    images = rng.random((4, 2, 4, 32, 32)).astype(np.float16)
    return SiteData("du", tuple("abcd"), images, np.ones((4, 4), bool), np.array([0, 1, 2, -1], np.int64), "key")


@pytest.mark.slow
def test_the_code_as_it_is_passes_and_a_model_is_probed(tmp_path) -> None:
    save_arrays(tmp_path / "model.safetensors", get_arrays(build_model(CONFIG)), {})
    result = audit_privacy(
        patients(), CONFIG, torch.Generator().manual_seed(0), trained=tmp_path / "model.safetensors", others=patients(1)
    )
    assert [check.name for check in result.checks if not check.passed] == []
    assert result.passed
    assert 0 <= result.membership_auc <= 1


@pytest.fixture
def share_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step alone: whole rounds (`test_round_audit`) and canaries take a minute, and are not what is asked here."""
    monkeypatch.setattr(audit, "check_rounds", lambda *_: [])
    monkeypatch.setattr(audit, "run_canaries", lambda _: CanaryAudit(1.5, 0.2, 1e-5, 120, 70))


@pytest.mark.usefixtures("share_alone")
def test_a_patient_counted_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = vars(audit)["patient_gradients"]

    def doubled(*arguments: Any) -> Parameters:
        return {name: torch.cat([value, value]) for name, value in honest(*arguments).items()}

    monkeypatch.setattr(audit, "patient_gradients", doubled)
    result = audit_privacy(patients(), CONFIG, torch.Generator().manual_seed(0))
    assert [check.name for check in result.checks if not check.passed] == ["one patient's share is bounded"]
    assert not result.passed


@pytest.mark.usefixtures("share_alone")
@pytest.mark.parametrize(("factor", "audited"), [("both", {"lora_a", "lora_b"}), ("b", {"lora_b"}), ("alternate", {"lora_b"})])
def test_it_audits_what_round_one_trains(monkeypatch: pytest.MonkeyPatch, factor: str, audited: set[str]) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, adapter=LoRA(factor=factor)))
    honest, seen = vars(audit)["patient_gradients"], []

    def watched(model: MultiModalViT, point: Point, *rest: object) -> Parameters:
        seen.append((set(point.trained), set(point.teacher) | set(point.fixed)))
        return honest(model, point, *rest)

    monkeypatch.setattr(audit, "patient_gradients", watched)
    monkeypatch.setattr(audit, "PROBED", 1)
    assert audit_privacy(patients(), config, torch.Generator().manual_seed(0)).passed
    for student, teacher in seen:
        assert {name.rpartition(".")[2] for name in student if "lora" in name} == audited
        assert teacher == set(get_arrays(build_model(config)))  # frozen ones still take part in the loss


def test_membership_inference_against_counting() -> None:
    members, others = np.array([0.1, 0.4, 0.5]), np.array([0.4, 0.9])
    pairs = [(m < o) + 0.5 * (m == o) for m in members for o in others]
    assert membership_auc(members, others) == pytest.approx(np.mean(pairs))
    with pytest.raises(DataError, match="labelled"):
        membership_auc(members, np.empty(0))


def test_head_rounds_are_audited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, head_rounds=2))
    assert audit.share_check(build_model(config), patients(), config).passed
    honest = vars(audit)["head_gradients"]

    def doubled(*arguments: Any) -> Parameters:
        return {name: torch.cat([value, value]) for name, value in honest(*arguments).items()}

    monkeypatch.setattr(audit, "head_gradients", doubled)
    assert not audit.share_check(build_model(config), patients(), config).passed
