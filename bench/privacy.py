"""What a private step costs beside a plain one on the same patients: `python bench/privacy.py OUT.json`.

Time: both sides in turns within one process. Peak memory: each side in a process of its own, above what stood before the step.
"""

import json
import multiprocessing
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ratio import ratio
from torch import Tensor
from torch.func import functional_call

from common.config.run import RunConfig, config_from_table
from common.data.dataset import SiteData
from common.files import write_atomic
from common.models.arrays import get_arrays
from common.models.build import build_model
from common.objectives.classification import classification_loss
from common.objectives.consistency import consistency_loss
from common.privacy.audit import canary_audit, the_optimizer
from common.privacy.charge import Charge
from common.privacy.noise import system_normal
from common.privacy.optimizer import SystemNoiseOptimizer
from common.training import kept, private_probing
from common.training.local import train_round
from common.training.plain import descend
from common.training.private import private_round
from common.training.private_views import Example, draw_example, patient_gradients
from common.training.round import Point, first_point

PATIENTS, MEGABYTE = 12, 1024
WEIGHTS = {"classification": 0.5, "consistency": 0.3, "dino": 0.0, "ibot": 0.0, "koleo": 0.0}
MODELS = {"fedmri_vit_mini": 64, "vit_small_patch14_dinov2.lvd142m": 112}


def config_of(backbone: str) -> RunConfig:
    """A private recipe on a backbone of random weights: they cost as much as any."""
    return config_from_table(
        {
            "data": {"size": MODELS[backbone]},
            "model": {"backbone": backbone, "weights": "random"},
            "objective": {"local_crops": 0, "terms": {name: {"weight": weight} for name, weight in WEIGHTS.items()}},
            "training": {"precision": "fp32"},
            "privacy": {"enabled": True, "sample_rate": 1.0},
        }
    )


def site(size: int) -> SiteData:
    """Patients with all four modalities."""
    images = np.random.default_rng(0).random((PATIENTS, 3, 4, size, size)).astype(np.float16)
    labels = np.arange(PATIENTS) % 3
    return SiteData("bench", tuple(map(str, labels)), images, np.ones((PATIENTS, 4), bool), labels, "bench")


def step(backbone: str, *, private: bool) -> Callable[[], None]:
    """One step of the optimizer over all patients."""
    config = config_of(backbone)
    model = build_model(config).eval()
    point = first_point(get_arrays(model), torch.empty(0, dtype=torch.int64), config, 1, torch.device("cpu"))
    patients = site(MODELS[backbone])
    inner = torch.optim.AdamW(point.trained.values(), lr=1e-3)
    optimizer = SystemNoiseOptimizer(inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_patients=PATIENTS)

    def run() -> None:
        examples = [draw_example(model, patients, row, config, (0, 0)) for row in range(PATIENTS)]
        if private:
            optimizer.take(point.trained, patient_gradients(model, point, examples, config))
        else:
            descend(inner, _plain_loss(model, point, examples, config), 0.0)

    return run


def head_round(backbone: str, *, private: bool) -> Callable[[], None]:
    """A whole first head round of the recipe of now: features of all patients, then the steps of a linear head."""
    plain, steps = config_of(backbone), 10
    model_settings = replace(plain.model, head="linear", head_hidden=0)
    training = replace(plain.training, head_rounds=2, head_steps=steps)
    plan = replace(plain.privacy, enabled=private, sample_rate=0.5, steps=steps)
    federation = replace(plain.federation, rounds=2)
    config = replace(plain, model=model_settings, training=training, privacy=plan, federation=federation)
    model, patients = build_model(config), site(MODELS[backbone])
    arrays = get_arrays(model)

    def run() -> None:
        kept.forget()
        private_probing._kept.clear()
        if private:
            private_round(model, arrays, patients, config, round_number=1, site_seed=0, charge=lambda charge: None)
        else:
            train_round(model, arrays, patients, config, round_number=1, site_seed=0)

    return run


def _plain_loss(model: torch.nn.Module, point: Point, examples: list[Example], config: RunConfig) -> Tensor:
    """The private recipe's loss, as one batch."""
    x, present, masks = (torch.cat([getattr(e, name) for e in examples]) for name in ("x", "present", "masks"))
    student, teacher = ({**trained, **point.fixed} for trained in (point.trained, point.teacher))
    B = len(examples)
    logits = functional_call(model, student, (x, present, masks)).logits.view(B, -1, len(config.task.classes))
    with torch.no_grad():
        first, whole = torch.cat([e.x[:1] for e in examples]), torch.cat([e.whole for e in examples])
        targets = (functional_call(model, teacher, (first, whole)).logits / 0.07).softmax(-1)
    balance = point.states["classification"]
    labels = torch.stack([e.label for e in examples]).repeat_interleave(logits.shape[1])
    labelled = classification_loss(logits.flatten(0, 1) / 0.1, labels, balance, 0.1)
    agreed = consistency_loss(logits.transpose(0, 1), targets, 0.1)
    return WEIGHTS["classification"] * labelled + WEIGHTS["consistency"] * agreed


def peak(backbone: str, private: bool) -> float:
    """MiB that one step takes above what the process held before it."""
    torch.set_num_threads(1)
    run = step(backbone, private=private)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what stands now (Linux)
    before = _memory("VmRSS")
    run()
    return (_memory("VmHWM") - before) / MEGABYTE


def _memory(name: str) -> int:
    """A line of the process' own status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def canaries() -> dict[str, float]:
    """What the canary audit claims and proves of the optimizer as it is, and with two planted faults."""
    charge, slices = Charge(4.2, 0.1, 200), 8

    def per_slice(inner: torch.optim.Optimizer, noise: float, norm: float, expected: float) -> SystemNoiseOptimizer:
        return the_optimizer(inner, noise / slices, norm * slices, expected)

    def silent(inner: torch.optim.Optimizer, noise: float, norm: float, expected: float) -> SystemNoiseOptimizer:
        return the_optimizer(inner, 0.0, norm, expected)

    right, sliced, bare = (
        canary_audit(charge, 1e-5, torch.Generator().manual_seed(0), gradients=gradients, make=make)
        for gradients, make in ((lambda g: g, the_optimizer), (lambda g: slices * g, per_slice), (lambda g: g, silent))
    )
    proved = {"as it is": right.audited, "clipping per slice, 8 slices": sliced.audited, "no noise": bare.audited}
    return {"claimed": round(right.claimed, 3)} | {f"proved, {name}": round(value, 3) for name, value in proved.items()}


def main(out: Path) -> None:
    """Measure all and write them."""
    torch.set_num_threads(1)
    spawn = multiprocessing.get_context("spawn")
    results: dict[str, dict[str, float]] = {}
    for backbone in MODELS:
        with spawn.Pool(1, maxtasksperchild=1) as pool:
            memory = pool.starmap(peak, [(backbone, True), (backbone, False)], chunksize=1)
        private, plain = step(backbone, private=True), step(backbone, private=False)
        arrays = sum(a.size for a in get_arrays(build_model(config_of(backbone))).values())
        noise = partial(system_normal, (arrays,), 1.0)
        results[backbone] = {
            "time: private / plain": ratio(private, plain),
            "peak memory: private / plain": round(memory[0] / memory[1], 3),
            "time: noise / private step": ratio(noise, private),
            "time: private / plain head round": ratio(head_round(backbone, private=True), head_round(backbone, private=False)),
            "trained values": arrays,
        }
    found = canaries()
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1, "patients a step": PATIENTS}
    write_atomic(out, (json.dumps({"ratios": results, "canaries": found, **machine}, indent=2) + "\n").encode())
    print(json.dumps(results | {"canaries": found}, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
