"""The model card: what a run's report knows of the model, and no more.

The sections follow Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import timm

from common.config.run import ModelConfig, RunConfig
from server.report.page.conformal import ALL
from server.report.page.headline import caution

NOT_TOLD = "not told"


def intended_use(config: RunConfig) -> str:
    """What the model is for, and what it is not."""
    classes = ", ".join(config.task.classes)
    return (
        f"Research on glioma {config.task.label} from MRI. It is no medical device: it has no approval, and no decision about a "
        f"patient may rest on it. It knows {len(config.task.classes)} classes ({classes}) and nothing else: every other brain "
        "gets probabilities that add up to one all the same."
    )


def weights_licence(model: ModelConfig) -> str:
    """The licence of the frozen weights, as far as it can be known."""
    if model.weights == "phantom":
        return "apache-2.0 (shipped with FedMRI)"
    if model.weights == "random":
        return "none: the backbone was not trained"
    settings = timm.get_pretrained_cfg(model.backbone) if timm.is_model(model.backbone) else None
    named = getattr(settings, "license", None)
    return f"{named} (what timm says of {model.backbone})" if named else "not known: ask whoever made them"


def model_card(
    report: Mapping[str, Any], config: RunConfig, sha256: str, adapter: str, checks: Sequence[Mapping[str, Any]]
) -> str:
    """The card as Markdown.

    Args:
        report: `report.json`, of this version or an older one.
        sha256: of the backbone's weights.
        adapter: whether adapters were merged, as the exported file says.
        checks: of `server.release.equivalence`: `file`, `patients`, `difference`, `source`.
    """
    parts = [
        ("Intended use, and its limits", [intended_use(config), _limits(report, config)]),
        ("Patients", _patients(report, config)),
        ("Training", _training(report, config, sha256, adapter)),
        ("Measured on the external hospital", _metrics(report)),
        ("Calibration", _calibration(report)),
        ("When modalities are missing", _subsets(report)),
        ("Privacy", _privacy(report)),
        ("Licences", [f"Code: Apache-2.0. Weights: {weights_licence(config.model)}."]),
        ("Checked when it was exported", _checks(checks)),
        ("How to verify these files", [VERIFY]),
    ]
    body = "\n\n".join(f"## {title}\n\n" + "\n\n".join(line for line in lines if line) for title, lines in parts)
    return f"# Model card: {config.model.backbone} with {config.model.adapter.name}, trained by FedMRI\n\n{body}\n"


VERIFY = (
    "`fedmri-server verify FOLDER --key release.pub`, with the public key from a source other than this folder. The signature is "
    "minisign's too: `minisign -V -m MANIFEST.json -p release.pub` checks the manifest, which holds the SHA-256 of every file."
)


def text(value: Any) -> str:
    """One cell: no line break, no bar, no markup that a name from a hospital could bring."""
    plain = " ".join(str(value).split())
    return "".join("\\" + c if c in "|<>[]`*_\\" else c for c in plain if c.isprintable())


def number(value: Any) -> str:
    """Three digits, or a dash."""
    return f"{value:.3f}" if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def interval(measure: Any) -> str:
    """`0.512 (0.301 to 0.688)`."""
    if not isinstance(measure, Mapping):
        return number(measure)
    if measure.get("low") is None:
        return number(measure.get("value"))
    return f"{number(measure.get('value'))} ({number(measure['low'])} to {number(measure.get('high'))})"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell if cell == "---" else text(cell) for cell in line) + " |" for line in lines)


def _limits(report: Mapping[str, Any], config: RunConfig) -> str:
    patients = report["external"].get("n") or len(report["patients"])
    return (
        f"It was measured on {patients} patients of the external hospital below, and on no others. Images must be of "
        f"{', '.join(config.data.modalities)} (any of them), registered to each other; with a tumour mask the slices go through "
        "the tumour, without one through the brain."
    )


def _patients(report: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Training sites by name; the external patients by class and modality."""
    data = report["provenance"].get("data")
    named = data.get("sites") if isinstance(data, Mapping) else None
    sites = named if isinstance(named, list) else sorted(_seen(report))
    rows = [[site, "trained", NOT_TOLD, *[NOT_TOLD] * (len(config.task.classes) + len(config.data.modalities))] for site in sites]
    classes, people = config.task.classes, report["patients"]
    labels = Counter(_class(p.get("label"), classes) for p in people)
    modalities = Counter(m for p in people for m in p.get("modalities", []))
    counts = [labels[c] for c in classes] + [modalities[m] for m in config.data.modalities]
    rows.append([report["provenance"].get("external") or "external", "measured", len(people), *counts])
    header = ["site", "part", "patients", *classes, *config.data.modalities]
    told = "How many patients a training hospital has, of which class, is its own to tell; this run's report does not hold it."
    return [table(header, rows), told]


def _class(label: Any, classes: Sequence[str]) -> Any:
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else label


def _seen(report: Mapping[str, Any]) -> set[str]:
    """Names of the sites whose update went into any round."""
    return {s for line in report["rounds"] if isinstance(line.get("sites"), list) for s in line["sites"]}


def _training(report: Mapping[str, Any], config: RunConfig, sha256: str, adapter: str) -> list[str]:
    rows: list[list[Any]] = [
        ["backbone", config.model.backbone],
        ["SHA-256 of its weights", sha256],
        ["adapter", f"{config.model.adapter.name}; {adapter}"],
        ["rounds", len(report["rounds"])],
        ["classes", ", ".join(config.task.classes)],
        ["slices, pixels, field of view", f"{config.data.slices}, {config.data.size}, {config.data.field_of_view:g} mm"],
        ["seed", config.seed],
        ["code", report["provenance"].get("code") or NOT_TOLD],
    ]
    return [table(["", ""], rows)]


def _metrics(report: Mapping[str, Any]) -> list[str]:
    external = report["external"]
    names = ("mcc", "balanced_accuracy", "macro_f1", "ece", "brier")
    rows = [[name, interval(external.get(name))] for name in names if external.get(name) is not None]
    auroc = external.get("auroc")
    if isinstance(auroc, Mapping):
        per_class = auroc.get("per_class")
        rows.append(["auroc, macro", interval(auroc.get("macro"))])
        rows += [[f"auroc, {c}", interval(m)] for c, m in per_class.items()] if isinstance(per_class, Mapping) else []
    return [
        f"{external.get('n', '-')} patients; in brackets 95% intervals.",
        caution(external),
        table(["measure", "value"], rows),
    ]


def _calibration(report: Mapping[str, Any]) -> list[str]:
    known = report.get("calibration")
    if not known:
        return ["None: probabilities are the model's own."]
    before, after = known.get("before") or {}, known.get("after") or {}
    patients = NOT_TOLD if known.get("patients") is None else known["patients"]
    rows = [[name, interval(before.get(name)), interval(after.get(name))] for name in ("ece", "brier", "nll")]
    sites = ", ".join(text(s) for s in known.get("sites") or []) or NOT_TOLD
    lines = [
        f"Temperature {number(known.get('temperature'))}, fitted on patients that no hospital trained on: {patients}, at {sites}."
    ]
    lines += ["On the external patients:", table(["", "before", "after"], rows)]
    conformal = known.get("conformal")
    if isinstance(conformal, Mapping):
        observed = interval(conformal.get("observed"))
        lines.append(f"Prediction sets: promised to hold the truth for {number(conformal.get('coverage'))}, observed {observed}.")
        lines.append(ALL if conformal.get("threshold") == 1 else "")
    return lines


def _subsets(report: Mapping[str, Any]) -> list[str]:
    subsets = report["modality_subsets"]
    if not subsets:
        return ["Not measured."]
    rows = [[name, s.get("n", "-"), interval(s.get("mcc")), interval(s.get("drop"))] for name, s in subsets.items()]
    return [table(["modalities", "patients", "mcc", "drop against all"], rows)]


def _privacy(report: Mapping[str, Any]) -> list[str]:
    if not report["privacy"]:
        return ["Trained without differential privacy: what the weights tell about single patients has no proven bound."]
    rows = [
        [site, number(c.get("epsilon")), f"{c['delta']:g}" if c.get("delta") is not None else "-", c.get("unit", "-")]
        for site, c in report["privacy"].items()
    ]
    return [table(["site", "epsilon", "delta", "unit"], rows)]


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[c["file"], c["patients"], f"{c['difference']:.1e}", c["source"]] for c in checks]
    return [table(["file", "patients", "largest difference of a probability", "patients are"], rows)]
