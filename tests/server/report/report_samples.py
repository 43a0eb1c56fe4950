"""Reports to test with: a whole one, and the edges."""

from functools import cache
from itertools import combinations, pairwise

import numpy as np
from sklearn.metrics import roc_curve

from common.metrics.classification import evaluate, paired_difference
from server.report.results import complete

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
    return complete({**parts, **changes})


def bare(labels):
    """No baselines, no rounds, no provenance; one patient a label."""
    labels = np.array(labels, int)
    p = predictions(np.random.default_rng(1), np.abs(labels), 0.5)
    return complete({"external": measured(labels, p), "patients": people(labels, p)})


SITES = ("hospital-east", "hospital-hill", "hospital-lake", "hospital-north")
MODALITIES = ("t1", "t1c", "t2", "flair")


@cache
def full_numbers():
    """What takes long, once: labels, probabilities, and all that is measured on them."""
    generator = np.random.default_rng(5)
    labels = np.arange(48) % 3
    p, pooled, weak = (predictions(generator, labels, skill) for skill in (1.6, 1.7, 0.6))

    def against(other):
        return {**measured(labels, other), "difference": paired_difference(labels, p, other, bootstrap=30, generator=generator)}

    alone = [against(predictions(generator, labels, 0.4 + 0.2 * i)) for i in range(4)]
    groups = {
        "site": {"coast": {**measured(labels[:30], p[:30]), "difference": {"value": 0.04, "low": -0.2, "high": 0.3}}},
        "age": {
            "under 50": {**measured(labels[:20], p[:20]), "difference": {"value": -0.1, "low": -0.38, "high": 0.2}},
            "50 and over": {**measured(labels[20:], p[20:]), "difference": {"value": 0.1, "low": -0.2, "high": 0.38}},
        },
        "sex": {"F": measured(labels[:2], p[:2]), "M": None},
    }
    own = {**measured(labels, p), "roc": roc(labels, p)}
    return labels, p, own, against(pooled), against(weak), alone, subsets(generator, labels, p), calibrated(labels, p), groups


def full(name="hospital-north", **changes):
    """A report of today with every section: 48 patients, 15 subsets, calibration, sets, groups, a site that failed."""
    labels, p, own, pooled, weak, alone, some, calibration, groups = full_numbers()
    parts = {
        "external": own,
        "patients": judged(people(labels, p), p),
        "rounds": [attended(r, name) for r in range(1, 9)],
        "baselines": {
            "pooled": pooled,
            "local": dict(zip((name, *SITES[:3]), alone, strict=True)),
            "linear_probe": weak,
        },
        "modality_subsets": some,
        "calibration": {**calibration, "failures": {name: "the site's policy does not allow it"}},
        "ood": {"rate": 0.05, "threshold": 3.1, "flagged": 3, "of": 48},
        "decision": decided(own, weak),
        "stage": staged(name),
        "personal": kept(name),
        "subgroups": groups,
        "detectable": {"n": 48, "difference": 0.27, "power": 0.8, "level": 0.95},
    }
    return whole(name, **{**parts, **changes})


def small():
    """Every section, of few patients and rounds."""
    report = full()
    report["patients"], report["rounds"] = report["patients"][:2], report["rounds"][2:5]
    report["aggregation"] = {
        "secure": True,
        "fewest": 3,
        "needed": 3,
        "site_level": {"epsilon": 2.0, "delta": 1e-5, "unit": "hospital"},
    }
    return report


def kept(name):
    """Norms kept at the sites: of one the numbers may be told, of one they may not, and one has told nothing."""
    counts = {"right": 5, "of": 7}
    shown = {"loss": 0.91, "recall": 0.714, "patients": 21, "classes": dict.fromkeys(CLASSES, counts)}
    better = shown | {"loss": 0.62, "recall": 0.857, "classes": dict.fromkeys(CLASSES, counts | {"right": 6})}
    return {
        "kept": ["norms"],
        "arrays": ["vit.norm.bias", "vit.norm.weight"],
        "ditto_lambda": 0.0,
        "why": "",
        "sites": {
            SITES[0]: {"global": shown, "own": better},
            SITES[1]: {"global": {"loss": 1.0, "recall": 0.5}, "own": {"loss": 1.2, "recall": None}},
        },
        "failures": {name: "the site does not share sums for calibration"},
    }


def roc(labels, p):
    curves = {c: roc_curve(labels == i, p[:, i])[:2] for i, c in enumerate(CLASSES)}
    return {c: {"fpr": fpr.tolist(), "tpr": tpr.tolist()} for c, (fpr, tpr) in curves.items()}


def judged(patients, p):
    for i, (patient, row) in enumerate(zip(patients, p, strict=True)):
        patient["prediction_set"] = [c for c, value in zip(CLASSES, row, strict=True) if value > 0.2]
        patient["ood"] = {"score": 1.0 + i % 4, "flagged": i % 16 == 5}
    return patients


def attended(r, name):
    failed = [name] if r in (3, 4) else []
    paused = [name] if r in (5, 6) else []
    return {
        "round": r,
        "attempts": 2 if r == 3 else 1,
        "seconds": 31.5 + r,
        "bytes_up": 1_450_000 * (4 - len(failed + paused)),
        "bytes_down": 6_000_000,
        "sites": [site for site in (*SITES[:3], name) if site not in failed + paused],
        "failures": [{"site": site, "reason": REASON, "rule": "site"} for site in failed],
        "retried": [{"attempt": 1, "site": SITES[1], "reason": "no reply within 9 s", "rule": "no-reply"}] if r == 3 else [],
        "paused": paused,
        "train": {"loss": 4.1 - 0.9 * np.log(r)},
        "external_mcc": 0.7 - 0.8 / r,
    }


def subsets(generator, labels, p):
    results = {}
    for size in range(1, 5):
        for chosen in combinations(MODALITIES, size):
            share = size / 4
            some = share * p + (1 - share) * generator.dirichlet([1, 1, 1], len(labels))
            drop = paired_difference(labels, p, some, bootstrap=30, generator=generator)
            results["+".join(chosen)] = {**measured(labels, some), "drop": drop}
    return results


def decided(after, before):
    """Offsets that moved a decision, and a class that is still named too often."""
    named = dict(zip(CLASSES, (21, 16, 17), strict=True))
    sides = {
        when: {"mcc": one["mcc"], "auroc": one["auroc"]["macro"], "predicted": dict(zip(CLASSES, counts, strict=True))}
        for when, one, counts in (("before", before, (8, 10, 30)), ("after", after, (12, 13, 23)))
    }
    return {
        "offsets": dict(zip(CLASSES, (0.41, 0.2, -0.61), strict=True)),
        "no_offsets": "",
        "truth": dict.fromkeys(CLASSES, 16),
        **sides,
        "gain": {"value": 0.12, "low": -0.05, "high": 0.29},
        "held_back": {
            "truth": named,
            "before": {"mcc": 0.45, "predicted": dict(zip(CLASSES, (16, 11, 27), strict=True))},
            "after": {"mcc": 0.6, "predicted": dict(zip(CLASSES, (20, 15, 19), strict=True))},
        },
        "disagreement": "Ranking and decision disagree: the AUROC is 0.89, but oligodendroglioma is named for 23 of 48 patients.",
    }


def staged(name):
    """A choice among rounds, their average, and points between."""
    rows = [{"name": f"round {r}", "round": r, "loss": 0.8 - 0.02 * abs(r - 6), "recall": 0.5 + 0.02 * r} for r in (8, 7, 6, 4)]
    rows.append({"name": "average of rounds 5 to 8", "round": None, "loss": 0.702, "recall": 0.68})
    rows.append({"name": "50% round 8, 50% round 4", "round": None, "loss": 0.71, "recall": None})
    kept = {"asked": "auto", "kept": "average of rounds 5 to 8", "why": "", "sites": list(SITES[:3]), "patients": 54}
    return {**kept, "candidates": rows, "failures": {name: "the site does not share sums for calibration"}}


def reliability(p, right):
    sure, edges = p.max(1), np.linspace(0, 1, 11)
    bins = []
    for low, high in pairwise(edges):
        here = (sure > low) & (sure <= high)
        n = int(here.sum())
        found = {"confidence": sure[here].mean(), "accuracy": right[here].mean()} if n else {"confidence": None, "accuracy": None}
        bins.append({"low": low, "high": high, "n": n, **found})
    return bins


def calibrated(labels, p):
    right = p.argmax(1) == labels
    sharp = p**2 / (p**2).sum(1, keepdims=True)
    before, after = measured(labels, sharp), measured(labels, p)
    order = np.argsort(-p.max(1))
    counts = [max(1, round(len(p) * k / 20)) for k in range(1, 21)]
    risks = [1 - right[order[:n]].mean() for n in counts]
    points = zip(counts, risks, strict=True)
    return {
        "temperature": 1.63,
        "sites": list(SITES[:3]),
        "patients": 61,
        "before": {"ece": before["ece"], "brier": before["brier"], "nll": 0.93, "reliability": reliability(sharp, right)},
        "after": {"ece": after["ece"], "brier": after["brier"], "nll": 0.81, "reliability": reliability(p, right)},
        "conformal": {
            "coverage": 0.9,
            "threshold": 0.8,
            "observed": {"value": 0.917, "low": 0.8, "high": 0.977},
            "mean_size": 1.6,
            "sizes": {"1": 24, "2": 19, "3": 5},
        },
        "abstention": [
            {"coverage": n / len(p), "risk": risk, "low": max(0, risk - 0.1), "high": min(1, risk + 0.14)} for n, risk in points
        ],
    }
