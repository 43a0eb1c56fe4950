"""Speed as ratios, both sides measured in turns within one run: `make bench` writes bench/speed.json.

Times on their own say more of the machine than of the code; ratios carry over.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ratio import ratio

from common.config.run import RunConfig, config_from_table, load_config
from common.data.dataset import SiteData
from common.evaluation.ood import features as ood
from common.files import write_atomic
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.objectives.masking import drop_modalities
from common.training import kept
from common.training.below import below
from common.training.forward import embed, forward_batches
from common.training.local import train_round
from common.training.predict import predict
from common.training.private_views import draw_example, patient_gradients
from common.training.probing import COPIES
from common.training.round import first_point

PATIENTS = 16
SAMPLED = 8  # in a private step


def config_of(**sections: Mapping[str, object]) -> RunConfig:
    """A small model, changed where a comparison asks for it."""
    base: dict[str, dict[str, object]] = {
        "data": {"size": 64},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random"},
        "training": {"precision": "fp32"},
    }
    return config_from_table({name: {**base.get(name, {}), **sections.get(name, {})} for name in base.keys() | sections.keys()})


def site(modalities: int = 4) -> SiteData:
    """Patients who have the first `modalities` of four."""
    images = np.random.default_rng(0).random((PATIENTS, 3, 4, 64, 64)).astype(np.float16)
    present = np.tile(np.arange(4) < modalities, (PATIENTS, 1))
    return SiteData("bench", tuple(map(str, range(PATIENTS))), images, present, np.arange(PATIENTS) % 3, "bench")


def training(config: RunConfig) -> Callable[[], object]:
    """One local round."""
    model, patients = build_model(config), site()
    arrays = get_arrays(model)
    return lambda: train_round(model, arrays, patients, config, round_number=1, site_seed=0)


def head_round(*, known: bool) -> Callable[[], object]:
    """A head round on patients with three modalities: the first, or a later one, which knows all embeddings."""
    config, patients = head_config(), site(3)
    model = build_model(config)
    arrays = get_arrays(model)

    def run() -> object:
        if not known:
            kept.forget()
        return train_round(model, arrays, patients, config, round_number=1, site_seed=0)

    return run


def plain_head_round() -> Callable[[], object]:
    """The same with the whole backbone for each copy."""
    config, patients = head_config(), site(3)
    trained, generator = TrainedModel(build_model(config), {}, config), torch.Generator().manual_seed(0)
    has, steps = torch.from_numpy(patients.present), head_round(known=True)
    copies = [has, *(drop_modalities(has, 1.0, generator) for _ in range(COPIES - 1))]

    def run() -> object:
        for present in copies:
            list(forward_batches(trained, patients, embed, present=present.numpy()))
        return steps()

    return run


def head_config() -> RunConfig:
    """Two head rounds; modalities meet in the last two blocks."""
    return config_of(
        model={"joint_blocks": 2, "head_hidden": 0},
        objective={"modality_dropout": 0.3},
        training={"head_rounds": 2, "head_steps": 40},
        federation={"rounds": 2},
    )


def prediction(modalities: int) -> Callable[[], object]:
    """Probabilities of patients who have so many modalities."""
    config = config_of()
    model, patients = build_model(config), site(modalities)
    return lambda: predict(TrainedModel(model, get_arrays(model), config), patients)


def answer_and_score(*, shared: bool) -> Callable[[], object]:
    """A prediction with its out-of-distribution score: with the first blocks computed once, or in each of the three passes."""
    config, patients = head_config(), site(3)
    trained = TrainedModel(model := build_model(config), get_arrays(model), config)

    def run() -> object:
        alone = below(trained, patients) if shared else None
        predict(trained, patients, alone=alone)
        with pytest.MonkeyPatch.context() as patch:
            if not shared:
                patch.setattr(ood, "below", lambda *_: None)
            return ood.features(trained, patients, alone=alone)

    return run


def private_step(config: RunConfig, method: str) -> Callable[[], object]:
    """Patients' gradients of one sample, from views that are cut already."""
    changed = replace(config, privacy=replace(config.privacy, gradients=method))
    data, random = config.data, np.random.default_rng(0)
    shape = (SAMPLED, config.training.slices_per_step, len(data.modalities), data.size, data.size)
    present = random.random((SAMPLED, shape[2])) < 0.8
    present[:, 0] = True
    patients = SiteData(
        "bench",
        tuple(map(str, range(SAMPLED))),
        random.random(shape).astype(np.float16),
        present,
        np.arange(SAMPLED) % 3,
        "bench",
    )
    model = build_model(config).eval()
    point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    examples = [draw_example(model, patients, row, config, (0, 0)) for row in range(SAMPLED)]
    return lambda: patient_gradients(model, point, examples, changed)


def private_config(name: str) -> RunConfig:
    """A private recipe that trains adapters in all its rounds, with drawn weights."""
    path = Path(__file__).resolve().parents[1] / "configs" / f"{name}.toml"
    return load_config(path, ("weights=random", "public_features=", "pooling=mean", "head_rounds=0"))


def started(code: str) -> Callable[[], object]:
    """A Python that runs the code."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def main(out: Path) -> None:
    """Measure all and write them."""
    torch.set_num_threads(1)
    supervised = {"terms": {name: {"weight": 0.0} for name in ("dino", "ibot", "koleo")}}
    results = {
        "predict: 1 modality / 4 modalities (absent ones cost no tokens)": ratio(prediction(1), prediction(4)),
        "train: bf16 / fp32": ratio(training(config_of(training={"precision": "bf16"})), training(config_of())),
        "train: LoRA / all parameters": ratio(training(config_of()), training(config_of(model={"adapter": "full"}))),
        "train: LoRA on the last 2 of 5 blocks / on all": ratio(training(config_of(model={"blocks": 2})), training(config_of())),
        "train: whole objective / classification alone": ratio(training(config_of()), training(config_of(objective=supervised))),
        "train: head alone, features known / head and LoRA": ratio(
            training(config_of(training={"head_rounds": 1})), training(config_of())
        ),
        "head round, the first / the whole backbone for each of 8 copies": ratio(head_round(known=False), plain_head_round()),
        "head round, later / the whole backbone for each of 8 copies": ratio(head_round(known=True), plain_head_round()),
        "predict: answer and score, first blocks once / three times": ratio(
            answer_and_score(shared=True), answer_and_score(shared=False)
        ),
        "private step, adapters of the small backbone: in one pass / patient after patient": ratio(
            private_step(private_config("private"), "batched"), private_step(private_config("private"), "loop")
        ),
        "private step, adapters of DeiT-Tiny at 224 pixels: in one pass / patient after patient": ratio(
            private_step(private_config("private-real"), "batched"), private_step(private_config("private-real"), "loop")
        ),
        "start: the ClientApp / with torch's compiler": ratio(
            started("import client.app"), started("import torch._dynamo, client.app")
        ),
    }
    machine = {
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": 1,
    }
    write_atomic(out, (json.dumps({"ratios": results, **machine}, indent=2) + "\n").encode())
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
