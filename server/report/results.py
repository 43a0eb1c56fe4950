"""Writes report.json at the end of a run; its presence marks a run that succeeded."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_atomic
from common.run_folder import REPORT_NAME

EMPTY: dict[str, Any] = {
    "external": {},
    "patients": [],
    "baselines": {},
    "modality_subsets": {},
    "covariates": {},
    "subgroups": {},
    "detectable": None,
    "rounds": [],
    "calibration": None,
    "ood": None,
    "decision": {},
    "stage": {},
    "twins": {},
    "personal": {},
    "privacy": {},
    "aggregation": {},
    "provenance": {},
}


def write_results(run: Path, results: Mapping[str, Any]) -> None:
    """Write RUN/report.json, whole or not at all.

    Args:
        run: the run folder.
        results: as `complete` gives them, or as they were read.
    """
    text = json.dumps(plain(results), indent=2, allow_nan=False)
    write_atomic(run / REPORT_NAME, (text + "\n").encode("utf-8"))


def complete(results: Mapping[str, Any]) -> dict[str, Any]:
    """A run's results with all parts of report.json, in its order, as plain values; a part that the run has not is empty.

    The parts:
        `external`: what `common.metrics.classification.evaluate` returned for the federated model; of a run that segments
        `segmentation` alone, of `common.evaluation.segmentation.external_entry`; of a run of findings `findings` alone, of
        `common.evaluation.findings.external_entry`. `baselines` and `modality_subsets` are alike.
        `patients`: one {`id`, `label`, `probabilities`, `modalities`} an external patient; `label` is a class index or name, -1
        or None where unknown; `probabilities` a list in the order of the classes or {class: value}. It may have
        `prediction_set`, `ood` {score, flagged}, and `picture`, a file under RUN/evidence that may be shown; of a run that
        segments, `segmentation` of `common.metrics.segmentation.Agreement`, None without a drawn mask; of a
        run of findings, `findings` {name: true, false, or None where it is unknown} and `probabilities` in their order.
        `rounds`: the lines of rounds.jsonl. A round's external MCC is read from `external` (shaped as above) or `external_mcc`.
        `provenance`: `config`, `backbone`, `weights_sha256`, `code`, `data`; `external`, the hospital's name, if it may show.
        `baselines`: `pooled`, `local` {site: ...}, `linear_probe`, each shaped like `external`, or None where it has no result;
        an optional `difference` {value, low, high} (`paired_difference`, federated minus this one) is shown too.
        `modality_subsets`: {"t1+flair": shaped like `external`, and `drop` {value, low, high}, full set minus this one}.
        `covariates`: `known` {name: external patients of whom it is known}, `of` how many, and `with` and `without` the clinical
        covariates, each shaped like `external`; `without` has a `drop` as subsets have; {} where the run takes none.
        `subgroups`: of `common.evaluation.subgroups.subgroups`; `detectable`: of `common.evaluation.comparison`.
        `calibration`: `temperature`, `offsets`, `sites`, `patients`, `failures`, `before`, `after`, `conformal`, `abstention`.
        `ood`: `rate`, `threshold`, `flagged`, `of`; `held_back` where they were too few to tell of those who are not flagged.
        `decision`: of `common.evaluation.calibration.decision`: what the class offsets did, or why there are none.
        `stage`: of `server.run.stage`: which arrays were kept and why; empty where `evaluation.stage` is "last".
        `twins`: `pairs` of `first`, `second` (SITE/PATIENT), `kind`, `overlap`, `left_out`; `patients`, `incomparable`; at a real
        federation `sites` {site: patients it left out, or None}, `failures` {site: why}; empty where nobody looked.
        `personal`: of `server.run.own_models`: `kept` kinds and `arrays`, `ditto_lambda`, `why` nobody was asked, `failures`, and
        by `sites` `global` and `own`, each with `loss`, `recall`, and `patients` and `classes` where they may be told; empty
        where sites have nothing of their own.
        `privacy`: {site: `epsilon`, `delta`, `unit`, `noise_multiplier`, `max_grad_norm`}, and `audit` of
        `server.report.privacy_audit` where there is one.
        `aggregation`: of `server.run.privacy_claims.aggregation_claims`: what the server saw of the updates, and noise for
        whole hospitals.

    Returns:
        JSON's own kinds: numpy values become Python's, NaN and infinities None, paths text.

    Raises:
        ValueError: a part that report.json does not know.
    """
    if unknown := results.keys() - EMPTY.keys():
        raise ValueError(f"report.json: expected parts of {', '.join(EMPTY)}; got {', '.join(sorted(unknown))}.")
    return {key: plain(nothing if results.get(key) is None else results[key]) for key, nothing in EMPTY.items()}


def plain(value: Any) -> Any:
    """The value in JSON's own kinds."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
