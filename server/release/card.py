"""The model card, written from a run's report and nothing else.

The sections follow Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from common.config.axes import AXIAL, in_words
from common.config.run import RunConfig
from common.config.sections import DataConfig
from common.models.backbones.licence import weights_licence
from server.report.decode import Measure
from server.report.page.conformal import ALL
from server.report.page.headline import caution
from server.report.report import Report

NOT_REPORTED = "not reported"


def intended_use(config: RunConfig) -> str:
    """What the model is for, and what it is not."""
    task = config.task
    return (
        f"Research on glioma {task.label} from MRI. It is no medical device: it has no approval, and no decision about a patient "
        f"may rest on it. It knows {len(task.classes)} classes ({', '.join(task.classes)}) and nothing else: every other brain "
        "gets probabilities that add up to one all the same."
    )


def model_card(
    report: Report, config: RunConfig, sha256: str, adapter: str, checks: Sequence[Mapping[str, Any]], run: str = ""
) -> str:
    """The card as Markdown.

    Args:
        report: of the run.
        config: of the run.
        sha256: of the backbone's weights.
        adapter: whether adapters were merged, as the exported file says.
        checks: of `server.release.equivalence`: `file`, `patients`, `difference`, `source`.
        run: what hospitals call the run, by which they find it where a patient withdraws; "": not known.
    """
    parts = [
        ("Intended use, and its limits", [intended_use(config), _limits(report, config)]),
        ("Patients", _patients(report, config)),
        ("Training", _training(report, config, sha256, adapter, run)),
        ("Results on the external hospital", _metrics(report)),
        ("Calibration", _calibration(report)),
        ("Missing modalities", _subsets(report)),
        ("Clinical covariates", _covariates(report, config)),
        ("Privacy", _privacy(report)),
        ("Licences", [f"Code: Apache-2.0. Weights: {weights_licence(config.model)}."]),
        ("Checks at export", _checks(checks)),
        ("How to verify these files", [VERIFY]),
    ]
    parts = [(title, lines) for title, lines in parts if lines]
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


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def interval(measure: Measure) -> str:
    """`0.512 (0.301 to 0.688)`."""
    if measure.low is None:
        return number(measure.value)
    return f"{number(measure.value)} ({number(measure.low)} to {number(measure.high)})"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell if cell == "---" else text(cell) for cell in line) + " |" for line in lines)


def _limits(report: Report, config: RunConfig) -> str:
    patients = report.external.n or len(report.patients)
    return (
        f"It was evaluated on {patients} patients of the external hospital below, and on no others. Images must be of "
        f"{', '.join(config.data.modalities)} (any of them), registered to each other; with a tumour mask the slices go through "
        "the tumour, without one through the brain."
    )


def _patients(report: Report, config: RunConfig) -> list[str]:
    """Training sites by name; the external patients by class and modality."""
    named = report.provenance.sites
    sites = sorted({site for each in report.rounds for site in each.there}) if named is None else named
    rows: list[list[Any]] = [
        [site, "trained", NOT_REPORTED, *[NOT_REPORTED] * (len(config.task.classes) + len(config.data.modalities))]
        for site in sites
    ]
    classes, people = config.task.classes, report.patients
    labels = Counter(patient.truth for patient in people)
    modalities = Counter(modality for patient in people for modality in patient.modalities)
    counts = [labels[c] for c in classes] + [modalities[m] for m in config.data.modalities]
    rows.append([report.provenance.hospital or "external", "measured", len(people), *counts])
    header = ["site", "part", "patients", *classes, *config.data.modalities]
    note = (
        "The numbers of patients and classes of the training hospitals are theirs to share; this run's report does not hold them."
    )
    return [table(header, rows), note]


def _training(report: Report, config: RunConfig, sha256: str, adapter: str, run: str) -> list[str]:
    rows: list[list[Any]] = [
        ["backbone", config.model.backbone],
        ["SHA-256 of its weights", sha256],
        ["adapter", f"{config.model.adapter.name}; {adapter}"],
        ["rounds", len(report.rounds)],
        ["arrays kept", report.stage.kept if report.stage else "of the last round"],
        ["classes", ", ".join(config.task.classes)],
        ["slices, pixels, field of view", f"{_slices(config.data)}, {config.data.size}, {in_words(config.data)}"],
        ["seed", config.seed],
        ["code", report.provenance.code or NOT_REPORTED],
        ["run, as the hospitals' records name it", run or NOT_REPORTED],
    ]
    return [table(["", ""], rows)]


def _slices(data: DataConfig) -> str:
    """How many; along which axes, where these are not the usual ones."""
    return f"{data.slices}" if data.axes == AXIAL else f"{data.slices} each ({', '.join(data.axes)})"


def _metrics(report: Report) -> list[str]:
    external = report.external
    measures = {name: getattr(external, name) for name in ("mcc", "balanced_accuracy", "macro_f1", "ece", "brier")}
    measures |= {"auroc, macro": external.auroc} | {f"auroc, {name}": found for name, found in external.auroc_of.items()}
    rows = [[name, interval(found)] for name, found in measures.items() if found.value is not None or name.startswith("auroc, ")]
    return [
        f"{'-' if external.n is None else external.n} patients; in brackets 95% intervals.",
        caution(external),
        table(["measure", "value"], rows),
    ]


def _calibration(report: Report) -> list[str]:
    known = report.calibration
    if not known:
        return ["None: probabilities are the model's own."]
    rows = [[key, *(number(getattr(side, key, None)) for side in (known.before, known.after))] for key in ("ece", "brier", "nll")]
    patients = NOT_REPORTED if known.patients is None else known.patients
    sites = ", ".join(text(site) for site in known.sites) or NOT_REPORTED
    lines = [f"Temperature {number(known.temperature)}, fitted on patients held out of training: {patients}, at {sites}."]
    lines += _offsets(report)
    lines += ["On the external patients:", table(["", "before", "after"], rows)]
    if sets := known.conformal:
        lines.append(f"Prediction sets: nominal coverage {number(sets.coverage)}, observed {interval(sets.observed)}.")
        lines.append(ALL if sets.threshold == 1 else "")
    return lines


def _offsets(report: Report) -> list[str]:
    """The class offsets, or why there are none; what they did on the external patients."""
    found = report.decision
    if not found:
        return []
    if not found.offsets:
        return [found.no_offsets, found.disagreement]
    rows = [[name, number(b)] for name, b in zip(found.classes, found.offsets, strict=True)]
    mcc = f"MCC without them {interval(found.external.before.mcc)}, with them {interval(found.external.after.mcc)}."
    return ["Class offsets, added to the log-probabilities:", table(["class", "offset"], rows), mcc, found.disagreement]


def _subsets(report: Report) -> list[str]:
    if not report.subsets:
        return ["Not measured."]
    rows = [[name, "-" if s.n is None else s.n, interval(s.mcc), interval(s.drop)] for name, s in report.subsets.items()]
    return [table(["modalities", "patients", "mcc", "drop against all"], rows)]


def _covariates(report: Report, config: RunConfig) -> list[str]:
    """What the model takes besides images, and what that is worth; nothing where it takes none."""
    rows = config.data.covariates
    if not rows:
        return []
    takes = "; ".join(f"{text(row.name)}, {row.expected}" for row in rows)
    lines = [f"Besides images the model takes {takes}; each may be missing."]
    if found := report.covariates:
        sides = {"with": found.told, "without": found.untold}
        cells = [[name, interval(s.mcc), interval(s.auroc), interval(s.drop)] for name, s in sides.items()]
        lines.append(table(["told of the external patients", "mcc", "auroc, macro", "drop against with"], cells))
    return lines


def _privacy(report: Report) -> list[str]:
    if not report.privacy:
        return [
            "Trained without differential privacy: there is no proven bound on what the weights disclose about single patients."
        ]
    rows = [
        [claim.site, number(claim.epsilon), "-" if claim.delta is None else f"{claim.delta:g}", claim.unit or "-"]
        for claim in report.privacy
    ]
    return [table(["site", "epsilon", "delta", "unit"], rows)]


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[c["file"], c["patients"], f"{c['difference']:.1e}", c["source"]] for c in checks]
    return [table(["file", "patients", "largest difference of a probability", "patients are"], rows)]
