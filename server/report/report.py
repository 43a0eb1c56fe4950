"""The report of a run: `report.json` for programs and `report.html` for people, written whole or not at all."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import FedMRIError
from common.files import write_atomic
from server.report.page.page import render
from server.report.page.pictures import read_pictures

JSON_NAME, HTML_NAME = "report.json", "report.html"
KEYS = {
    "external": dict,
    "patients": list,
    "baselines": dict,
    "modality_subsets": dict,
    "rounds": list,
    "calibration": dict | None,
    "privacy": dict,
    "provenance": dict,
}
# What HTML and terminals do not show, and lone halves of a surrogate pair, which no encoding has.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def assemble(
    external: Mapping[str, Any],
    patients: list[dict[str, Any]],
    rounds: list[dict[str, Any]],
    provenance: Mapping[str, Any],
    *,
    baselines: Mapping[str, Any] | None = None,
    modality_subsets: Mapping[str, Any] | None = None,
    subgroups: Mapping[str, Any] | None = None,
    detectable: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    ood: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
    aggregation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put a run's results together in the shape of report.json.

    Args:
        external: what `common.metrics.classification.evaluate` returned for the federated model.
        patients: one {`id`, `label`, `probabilities`, `modalities`} an external patient; `label` is a class index or name, -1
            or None where unknown; `probabilities` a list in the order of the classes or {class: value}. It may have
            `prediction_set`, `ood` {score, flagged}, and `picture`, a file under RUN/evidence that may be shown.
        rounds: the lines of rounds.jsonl. A round's external MCC is read from `external` (shaped as above) or `external_mcc`.
        provenance: `config`, `backbone`, `weights_sha256`, `code`, `data`, and `external`, the hospital's name, if it is to show.
        baselines: `pooled`, `local` {site: ...}, `linear_probe`, each shaped like `external`, or None where it has no result. An
            optional `difference` {value, low, high} (`paired_difference`, federated minus this one) is shown too.
        modality_subsets: {"t1+flair": shaped like `external`, and `drop` {value, low, high}, full set minus this one}.
        subgroups: of `common.evaluation.subgroups.subgroups`; detectable: of `common.evaluation.comparison`.
        calibration: `temperature`, `sites`, `patients`, `failures`, `before`, `after`, `conformal`, `abstention`.
        ood: `rate`, `threshold`, `flagged`, `of`.
        privacy: {site: `epsilon`, `delta`, `unit`, `noise_multiplier`, `max_grad_norm`}, and `audit` of
            `server.report.privacy_audit` where there is one.
        aggregation: of `server.run.privacy_claims.aggregation_claims`: what the server saw of the updates, and noise for whole
        hospitals.

    Returns:
        Plain values only: numpy values become Python's, NaN and infinities None, paths text.
    """
    report = {
        "external": external,
        "patients": patients,
        "baselines": baselines or {},
        "modality_subsets": modality_subsets or {},
        "subgroups": subgroups or {},
        "detectable": detectable,
        "rounds": rounds,
        "calibration": calibration,
        "ood": ood,
        "privacy": privacy or {},
        "aggregation": aggregation or {},
        "provenance": provenance,
    }
    return {key: _plain(value) for key, value in report.items()}


def write_report(run: Path, report: dict[str, Any]) -> None:
    """Write both files into the run folder; report.json comes last, and so marks a run that succeeded."""
    text = json.dumps(_plain(report), indent=2, allow_nan=False)
    write_atomic(run / HTML_NAME, render_run(run, report).encode("utf-8"))
    write_atomic(run / JSON_NAME, (text + "\n").encode("utf-8"))


def render_run(run: Path, report: dict[str, Any]) -> str:
    """The page with the pictures that lie in the run folder."""
    return render_html(report, read_pictures(run, report))


def read_report(run: Path) -> dict[str, Any]:
    """Read a run folder's report.json.

    Raises:
        FedMRIError: no file, no JSON, or a key that is missing or of another kind.
    """
    path = run / JSON_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FedMRIError(
            f"Run {run}: no {JSON_NAME} ({error.strerror}). Name the folder of a run that has finished; "
            "its logs say why one has not."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FedMRIError(f"{path}: not valid JSON ({error}). Run the federation again.") from error
    if not isinstance(report, dict):
        raise FedMRIError(f"{path}: expected a table with {', '.join(KEYS)}; got {type(report).__name__}.")
    wrong = [key for key, kind in KEYS.items() if key not in report or not isinstance(report[key], kind)]
    if wrong:
        raise FedMRIError(f"{path}: {', '.join(wrong)} missing or of another kind. It was written by another version of FedMRI?")
    return report


def render_html(report: dict[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The report as one self-contained HTML page: no script, no network, light and dark, screen and paper.

    Args:
        report: as `assemble` or `read_report` gives it.
        pictures: file name -> data URI of the pictures that patients name (`server.report.page.pictures`).
    """
    return UNPRINTABLE.sub("\ufffd", render(_plain(report), pictures or {}))


def _plain(value: Any) -> Any:
    """The value in JSON's own kinds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
