"""What `fedmri-site predict` tells of an answer: a row among many, facts and evidence of one, and the card."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import FedMRIError

if TYPE_CHECKING:
    from client.predict.prediction import Answer


def add_row(rows: Table, found: "Answer") -> None:
    """One patient among many: class, probability, prediction set, flag, modalities."""
    among = "" if found.in_set is None else "all classes" if found.in_set.all() else ", ".join(found.prediction_set or ())
    flag = {True: Text("YES", style="red"), False: Text("no"), None: Text("cannot be told")}[found.flagged]
    cells = (found.case.id, found.prediction, f"{found.probabilities.max():.3f}", among)
    rows.add_row(*(Text(cell) for cell in cells), flag, Text("+".join(found.used)))


def print_answer(found: "Answer", console: Console) -> None:
    """Probabilities, and how reliable they are."""
    from client.predict.prediction import RESEARCH

    table = Table("class", "probability", "in the set", title=Text(f"Patient {found.case.id}"), title_justify="left")
    for i, name in enumerate(found.config.task.classes):
        style = "bold" if name == found.prediction else ""
        inside = "" if found.in_set is None else "yes" if found.in_set[i] else "no"
        table.add_row(Text(name, style=style), Text(f"{found.probabilities[i]:.3f}", style=style), Text(inside))
    console.print(table)
    for line, style in _facts(found):
        console.print(line, style=style, markup=False, highlight=False)
    console.print(RESEARCH)


def _facts(found: "Answer") -> list[tuple[str, str]]:
    """Sentences and their style."""
    from client.predict.confidence import calibration_words, covariate_words, likeness_words, proposal_words, set_words

    style = {True: "bold red", False: "", None: "yellow"}[found.flagged]
    lines = [
        (calibration_words(found), "" if found.calibrated else "yellow"),
        (set_words(found), ""),
        (likeness_words(found), style),
    ]
    unknown = f"; the model does not know {', '.join(found.ignored)}" if found.ignored else ""
    missing = f"; missing: {', '.join(found.missing)}" if found.missing else ""
    lines.append((f"Modalities used: {', '.join(found.used)}{missing}{unknown}.", ""))
    lines.append((f"Clinical covariates used: {told}." if (told := covariate_words(found)) else "", ""))
    lines.append((f"Slices used: {found.why_slices}.", ""))
    lines.append((proposal_words(found), "yellow"))
    lines += [(f"{one.level.capitalize()}: {one}", "" if one.level == "note" else "yellow") for one in found.sliced.findings]
    return [line for line in lines if line[0]]


def print_evidence(found: "Answer", console: Console) -> None:
    """The evidence for the prediction, and its limits."""
    from client.predict.prediction import LIMITS, answer_table

    evidence = answer_table(found)["evidence"]
    if evidence is None:
        return
    table = Table("modality", "drop in the predicted class's probability without it", title="By modality", title_justify="left")
    for name, value in evidence.get("modalities", {}).items():
        table.add_row(name, f"{value:+.3f}")
    console.print(table if evidence.get("modalities") else "Evidence by modality: there is only one, so none can be left out.")
    if evidence.get("covariates"):
        known = Table("covariate", "drop where it is not known", title="By clinical covariate", title_justify="left")
        for name, value in evidence["covariates"].items():
            known.add_row(f"{name} {found.covariates[name]}", f"{value:+.3f}")
        console.print(known)
    if "place" in evidence:
        rows, columns = evidence["place"]["patches"]
        header = ("slice", "modality", f"row of {rows}, from the front", f"column of {columns}, from the right", "logit")
        places = Table(*header, title="By place: the squares with the strongest evidence", title_justify="left")
        for one in evidence["place"]["strongest"]:
            places.add_row(str(one["slice"]), one["modality"], str(one["row"]), str(one["column"]), f"{one['logit']:+.4f}")
        console.print(places)
    console.print(LIMITS, highlight=False, style="dim")


def write_card(found: "Answer", path: Path, quiet: bool) -> None:
    """The HTML card; says where it lies unless it is to be quiet.

    Raises:
        FedMRIError: it cannot be written there.
    """
    from client.predict.card import render_card
    from common.files import write_atomic

    try:
        write_atomic(path, render_card(found).encode())
    except OSError as error:
        raise FedMRIError(f"--card {path}: cannot be written ({error.strerror}). Name a place to write to.") from error
    if not quiet:
        Console(soft_wrap=True, highlight=False, markup=False).print(f"Card: {path}")


def card_name(found: "Answer") -> str:
    """A patient's id as the name of a card; where it cannot be that as it is, with what keeps it apart from others' names."""
    patient = found.case.id
    name = re.sub(r"[^\w.-]+", "_", patient).lstrip(".") or "patient"
    return f"{name}.html" if name == patient else f"{name}-{hashlib.sha256(patient.encode()).hexdigest()[:8]}.html"
