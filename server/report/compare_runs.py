"""Comparison of runs: results, paired differences on common patients, and settings that differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config.run import config_from_table
from common.errors import ConfigError, FedMRIError
from common.schema import plain
from server.report.decode import table
from server.report.page.headline import caution
from server.report.report import Report, decode, read_report

DAMAGED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def compare_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """What `fedmri-server report RUN RUN...` shows.

    Args:
        runs: folders of finished runs, two or more; the others are held against the first.

    Returns:
        `runs`: one a run, in their order: {`name`, `external` (the hospital), `n`, `caution` ("": none), `mcc`,
        `balanced_accuracy`, `auroc`, `brier` {value, low, high}, `calibration` {temperature, ece, ece_before, coverage
        {nominal, observed}}, `subsets` {name: MCC {value, low, high}}, `paired` (what `compare_reports` said: this run minus
        the first; None for the first), `unpaired` (why it could not be paired)}; `config` {dotted key: [value of each run]}:
        settings that differ.

    Raises:
        FedMRIError: a run without a report, or with a damaged one.
    """
    reports = [read_report(run) for run in runs]
    if any({"segmentation", "findings"} & report["external"].keys() for report in reports):
        raise FedMRIError(
            "Runs that segment, or tell findings, are not compared side by side yet. Show each by itself: fedmri-server report "
            "RUN."
        )
    try:
        pairs = [{"paired": None, "unpaired": None}, *(_pair(reports[0], other) for other in reports[1:])]
        found = [decode(report) for report in reports]
        entries = [_entry(name, report) for name, report in zip(_names(runs), found, strict=True)]
        together = [entry | pair for entry, pair in zip(entries, pairs, strict=True)]
        return {"runs": together, "config": _config_differences(found)}
    except DAMAGED as error:
        raise FedMRIError(
            f"{', '.join(map(str, runs))}: expected reports as FedMRI writes them; one was changed or damaged "
            f"({type(error).__name__}). `fedmri-server report RUN`, of each, tells which, and how to write it anew."
        ) from error


def _names(runs: Sequence[Path]) -> list[str]:
    """Each run's name: as many of its last folders as make it unique."""
    paths = [run.expanduser().resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def _entry(name: str, report: Report) -> dict[str, Any]:
    external = report.external
    return {
        "name": name,
        "external": report.provenance.hospital,
        "n": external.n or 0,
        "caution": caution(external),
        **{key: vars(getattr(external, key)) for key in ("mcc", "balanced_accuracy", "auroc", "brier")},
        "calibration": _calibration(report),
        "subsets": {key: vars(subset.mcc) for key, subset in report.subsets.items()},
    }


def _calibration(report: Report) -> dict[str, Any]:
    """What the temperature did, and the prediction sets' coverage."""
    found = report.calibration
    before, after, sets = (found.before, found.after, found.conformal) if found else (None, None, None)
    return {
        "temperature": found.temperature if found else None,
        "ece_before": before.ece if before else None,
        "ece": after.ece if after else report.external.ece.value,
        "coverage": {
            "nominal": sets.coverage if sets else None,
            "observed": sets.observed.value if sets else None,
        },
    }


def _pair(first: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """This run minus the first on the patients that both have; or why not."""
    from common.evaluation.comparison import compare_reports  # noqa: PLC0415  takes seconds to load, as all that trains

    hospital, other = (table(each["provenance"]).get("external") for each in (first, report))
    if hospital != other:
        return {"paired": None, "unpaired": "another external hospital: its patients are not the same"}
    if _other_content(first, report):
        return {"paired": None, "unpaired": "an external hospital of the same name with other images"}
    try:
        paired = compare_reports(report, first)
    except FedMRIError as error:
        return {"paired": None, "unpaired": str(error)}
    return {"paired": paired, "unpaired": None} if paired["n"] else {"paired": None, "unpaired": "no labelled patient in common"}


def _other_content(first: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether equal settings of slices made other slices of the external patients; unknown of old reports: no."""
    ways, keys = [], []
    for one in (first, report):
        provenance = table(one["provenance"])
        ways.append(table(provenance.get("config")).get("data"))
        keys.append(table(provenance.get("data")).get("external_key"))
    return ways[0] == ways[1] and all(keys) and keys[0] != keys[1]


def _config_differences(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """Dotted keys of the settings in which the runs differ, with each run's value; None where it has no such setting."""
    flat = [_flat(config) for config in _of_today([report.provenance.config for report in reports])]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    rows = {key: [each.get(key) for each in flat] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _of_today(configs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """In the keys of this version, so that an old run differs by its settings alone; as they are where one is foreign."""
    try:
        return [plain(config_from_table(dict(config))) for config in configs]
    except ConfigError:
        return configs


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
