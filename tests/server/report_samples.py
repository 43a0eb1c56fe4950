"""Reports to test with: a whole one, and the edges."""

from functools import cache

import numpy as np

from common.evaluation.metrics import evaluate, paired_difference
from server.report import assemble

CLASSES = ("idh-mutant-astrocytoma", "idh-wildtype", "oligodendroglioma")
REASON = "the site could not do its part; its own log says why"


def predictions(generator, labels, skill):
    p = generator.dirichlet([1, 1, 1], len(labels)) + skill * np.eye(3)[labels] * generator.random((len(labels), 1))
    return p / p.sum(axis=1, keepdims=True)


def measured(labels, p):
    return evaluate(labels, p, CLASSES, bootstrap=30, generator=np.random.default_rng(0))


def people(labels, p):
    return [
        {"id": f"sub-{i:03d}", "label": int(t), "probabilities": row, "modalities": ["t1", "t1c", "t2", "flair"][: 1 + i % 4]}
        for i, (t, row) in enumerate(zip(labels, p, strict=True))
    ]


@cache
def numbers():
    generator = np.random.default_rng(3)
    labels = np.arange(20) % 3
    p, other = predictions(generator, labels, 1.5), predictions(generator, labels, 0.3)
    difference = paired_difference(labels, p, other, bootstrap=30, generator=generator)
    return labels, p, measured(labels, p), {**measured(labels, other), "difference": difference}


def whole(name="hospital-north", **changes):
    labels, p, own, local = numbers()
    failures = [{"site": name, "reason": REASON}]
    rounds = [
        {
            "round": r,
            "seconds": 9.5,
            "bytes_up": 2_000_000,
            "bytes_down": 3_000_000,
            "sites": 4 - r % 2,
            "failures": failures if r % 2 else [],
            "paused": [name] if r == 4 else [],
            "external_mcc": -0.1 + r / 8,
        }
        for r in range(1, 6)
    ]
    audit = {
        "passed": False,
        "checks": [
            {"name": "noise from no seed", "passed": True, "detail": "two steps gave different noise"},
            {"name": "sampling rate as claimed", "passed": False, "detail": f"{name}: mean 3.2 (expected 1.9)"},
        ],
        "canary": {"claimed": 1.5, "audited": 0.21, "passed": True},
        "membership_auc": None,
    }
    claim = {"epsilon": 3.2, "delta": 1e-5, "unit": "patient", "noise_multiplier": 1.1, "max_grad_norm": 1.0}
    parts = {
        "external": own,
        "patients": people(labels, p),
        "rounds": rounds,
        "provenance": {
            "config": '{"seed": 7}',
            "backbone": "vit",
            "weights_sha256": "ab" * 32,
            "data": {name: "cd"},
            "external": "coast",
        },
        "baselines": {
            "pooled": own,
            "local": {name: local, "hill": None},
            "linear_probe": local,
        },
        "modality_subsets": {"t1+flair": local},
        "calibration": {"temperature": 1.4, "before": {"ece": 0.2}, "after": {"ece": 0.1}},
        "privacy": {name: {**claim, "audit": audit}, "coast": claim},
    }
    return assemble(**{**parts, **changes})


def bare(labels):
    """No baselines, no rounds, no provenance; one patient a label."""
    labels = np.array(labels, int)
    p = predictions(np.random.default_rng(1), np.abs(labels), 0.5)
    return assemble(measured(labels, p), people(labels, p), [], {})
