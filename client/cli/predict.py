"""`fedmri-site predict`: an answer for the next patient, or for all patients of a folder. Nothing leaves this machine."""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from client.cli.answers import add_row, card_name, print_answer, print_evidence, write_card
from client.cli.findings import require_no_class_options, tell_findings
from client.cli.propose import propose_all, require_options, require_volume_options
from common.cli import add_debug
from common.config.modalities import MODALITIES
from common.errors import ConfigError, DataError
from common.terminal.progress import long_work

if TYPE_CHECKING:
    from client.predict.inputs import PredictionInputs
    from client.predict.prediction import Answer
    from client.predict.prefetch import Read
    from common.data.gate.finding import Finding
    from common.model_files.open import SavedModel
    from common.model_files.opened_model import OpenedModel

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_predict(verbs: "Verbs") -> None:
    """Add the verb."""
    text = (
        "Class probabilities for one patient or a folder of them, with calibration, prediction set, out-of-distribution flag and "
        "evidence. Nothing leaves this machine. For research. Not a medical device."
    )
    words = "=, ".join(MODALITIES)
    verb = verbs.add_parser("predict", help="an answer for the next patient", description=text)
    verb.add_argument(
        "patients", type=Path, nargs="?", metavar="PATIENT|SITE", help="a patient's or a site's folder, or a site.toml"
    )
    verb.add_argument("--files", nargs="+", metavar="KIND=FILE", help=f"one patient's volumes: {words}=, mask=")
    text = (
        "a finished run's folder, its model file, or a model that came here (`fedmri-site models`): STUDY/latest, STUDY/VERSION"
    )
    verb.add_argument("--model", type=Path, required=True, metavar="RUN|FILE|STUDY/latest", help=text)
    text = "the site's folder, where such models and frozen weights are kept (default: PATIENT|SITE, where that is one)"
    verb.add_argument("--site", type=Path, metavar="FOLDER", help=text)
    given = "of one patient, where the model takes it (default: what participants.tsv says)"
    verb.add_argument("--age", metavar="YEARS", help=f"age, {given}")
    verb.add_argument("--sex", metavar="F|M", help=f"sex, {given}")
    verb.add_argument(
        "--covariate", action="append", default=[], metavar="NAME=VALUE", help=f"any clinical covariate {given}; such as age=54"
    )
    verb.add_argument("--weights", default="", metavar="FILE", help="the backbone's weights (default: the run's model.weights)")
    verb.add_argument(
        "--evidence",
        choices=("none", "modalities", "all"),
        help="what to explain; all: also by place (default: all for one patient, none for a folder)",
    )
    verb.add_argument(
        "--card",
        type=Path,
        metavar="FILE.html|DIR",
        help="write an HTML card: as FILE.html, or into DIR under the patient's name",
    )
    text = "a model that segments: where no mask is drawn, slices go through the tumour that it proposes, and the answer says so"
    verb.add_argument("--mask-model", type=Path, metavar="RUN|FILE|STUDY/latest", help=text)
    verb.add_argument("--masks", type=Path, metavar="DIR", help="of a model that segments: where proposed masks are written")
    text = "of a model that segments: the DICOM series that the patient's image was made from; a DICOM SEG is written for it"
    verb.add_argument("--dicom", type=Path, metavar="FOLDER", help=text)
    verb.add_argument("--json", action="store_true", help="print JSON: of a folder's patients one list")
    add_debug(verb)
    verb.set_defaults(handler=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from client.predict.covariates import with_covariates
    from client.predict.inputs import find_patients, patient_of_files
    from client.predict.prefetch import reading
    from common.model_files.open import open_saved, read_saved

    if (arguments.patients is None) == (arguments.files is None):
        raise ConfigError("predict: name a patient's or a site's folder, or --files t1=FILE flair=FILE, and not both.")
    home = _home(arguments)
    saved = read_saved(_model(arguments.model, home))
    _say_unfinished(saved)
    modalities = saved.config.data.modalities
    asked = find_patients(arguments.patients, modalities) if arguments.files is None else patient_of_files(arguments.files)
    asked = with_covariates(asked, arguments.patients, _said(arguments), saved.config.data.covariates)
    if arguments.card and arguments.card.suffix == ".html" and not asked.single:
        raise ConfigError(f"--card {arguments.card}: for a folder of patients, name a folder for one card each.")
    _say_findings(asked)
    require_options(arguments, single=asked.single, segments=saved.config.task.decoder is not None)
    if saved.config.task.decoder:
        opened = open_saved(saved, arguments.weights or _kept_weights(saved, home) or asked.weights)
        return propose_all(asked, opened, arguments)
    if not saved.config.task.exclusive:
        require_no_class_options(arguments)
    require_volume_options(arguments, saved.config, single=asked.single)
    guide = _guide(arguments, home)
    with reading(asked.cases, saved.config.data) as read:  # goes on while torch is loaded
        opened = open_saved(saved, arguments.weights or _kept_weights(saved, home) or asked.weights)
        if not saved.config.task.exclusive:
            return tell_findings(read, asked, opened, arguments)
        if asked.single:
            return _one(next(read), asked, opened, arguments, guide)
        return _many(read, asked, opened, arguments, guide)


def _guide(arguments: argparse.Namespace, home: Path | None) -> "OpenedModel | None":
    """The model that proposes masks; None where none is named."""
    from client.predict.proposal import require_decoder
    from common.model_files.open import open_saved, read_saved

    if arguments.mask_model is None:
        return None
    saved = read_saved(_model(arguments.mask_model, home))
    require_decoder(saved.config, f"--mask-model {arguments.mask_model}")
    _say_unfinished(saved)
    return open_saved(saved, _kept_weights(saved, home))


def _table(found: "Answer", asked: "PredictionInputs") -> dict[str, Any]:
    """What JSON has of a patient: how their files were found stands before how these were read."""
    from client.predict.prediction import answer_table

    table, names = answer_table(found), [asdict(one) for one in asked.findings if one.patient == found.case.id]
    return {**table, "findings": [*names, *table["findings"]]}


def _home(arguments: argparse.Namespace) -> Path | None:
    """The site's folder, where one is named or meant."""
    site: Path | None = arguments.site
    named: Path | None = site or arguments.patients
    if named is None or not (named.suffix == ".toml" or (named / "site.toml").is_file()):
        return site
    return named.parent if named.suffix == ".toml" else named


def _model(model: Path, home: Path | None) -> Path:
    """The model's file or folder; of one that came here the signature is checked.

    Raises:
        ConfigError: no file, no folder and no model that is kept here.
        FederationError: the model is not as it was signed.
    """
    if model.exists() or len(model.parts) != 2 or home is None:
        return model
    from client.gate.kept_models import find_model

    return find_model(home, str(model))


def _kept_weights(saved: "SavedModel", home: Path | None) -> str:
    """The site's own copy of the frozen weights that the model was trained on."""
    from common.models.backbones.kept_weights import FOLDER_NAME, kept_file

    found = kept_file(home / FOLDER_NAME, saved.metadata["backbone_sha256"]) if home else None
    return str(found or "")


def _say_findings(asked: "PredictionInputs") -> None:
    """On standard error, how names were read where they could have been read otherwise: of each kind the first patient's."""
    errors, colours = Console(stderr=True, soft_wrap=True, highlight=False, markup=False), {"warning": "yellow"}
    by_code: dict[str, list[Finding]] = {}
    for one in asked.findings:
        by_code.setdefault(one.code, []).append(one)
    for found in by_code.values():
        more = f" And {len(found) - 1} more of this kind." if len(found) > 1 else ""
        errors.print(f"{found[0].level.value.capitalize()}: {found[0]}{more}", style=colours.get(found[0].level.value))


def _say_unfinished(saved: "SavedModel") -> None:
    """On standard error, where the run of the model has not finished."""
    if saved.unfinished:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"Warning: {saved.unfinished}", style="yellow")


def _said(arguments: argparse.Namespace) -> list[str]:
    """What the options say of the patient, as NAME=VALUE."""
    short = {"age": arguments.age, "sex": arguments.sex}
    return [*(f"{name}={value}" for name, value in short.items() if value is not None), *arguments.covariate]


def _one(
    read: "Read",
    asked: "PredictionInputs",
    opened: "OpenedModel",
    arguments: argparse.Namespace,
    guide: "OpenedModel | None",
) -> int:
    """The answer first; the evidence by modality takes longer, and follows."""
    from client.predict.guided import guided_answers
    from client.predict.prediction import weigh_modalities

    case, sliced = read
    if isinstance(sliced, DataError):
        raise sliced
    evidence, console = arguments.evidence or "all", Console()
    found = guided_answers(opened, [(case, sliced)], guide, str(arguments.mask_model), places=evidence == "all")[0]
    if not arguments.json:
        print_answer(found, console)
    if evidence != "none":
        with Console(stderr=True).status("Leaving out one modality after the other"):
            found = weigh_modalities(opened, [found])[0]
    if arguments.json:
        print(json.dumps(_table(found, asked), indent=2))
    else:
        print_evidence(found, console)
    if arguments.card:
        into = arguments.card.is_dir() or not arguments.card.suffix
        write_card(found, arguments.card / card_name(found) if into else arguments.card, arguments.json)
    return 0


def _many(
    read: "Iterable[Read]",
    asked: "PredictionInputs",
    opened: "OpenedModel",
    arguments: argparse.Namespace,
    guide: "OpenedModel | None",
) -> int:
    """All patients in batches; one that fails is named, and the others go on."""
    odd: list[Finding] = []
    broken, tables, rows = dict(asked.broken), [], Table("patient", "prediction", "p", "set", "out of distribution", "modalities")
    for column in rows.columns:
        column.overflow = "fold"  # half a class's name is no answer
    total = len(asked.cases)
    with long_work(f"Predicting {total} patients") as report:
        todo, done = iter(read), 0
        while batch := list(islice(todo, opened.config.evaluation.batch_size)):
            for found in _batch(batch, broken, opened, arguments, guide):
                tables.append(_table(found, asked))
                add_row(rows, found)
                odd += [one for one in found.sliced.findings if one.level == "warning"]
                if arguments.card:
                    write_card(found, arguments.card / card_name(found), quiet=True)
            done += len(batch)
            report(done, total)
    _say_many(tables, rows, broken, opened, arguments)
    for one in [] if arguments.json else odd:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"Warning: {one}", style="yellow")
    return 1 if broken else 0


def _batch(
    batch: "Sequence[Read]",
    broken: dict[str, str],
    opened: "OpenedModel",
    arguments: argparse.Namespace,
    guide: "OpenedModel | None",
) -> "list[Answer]":
    """Answers for those who could be read; the others are added to `broken`."""
    from client.predict.guided import guided_answers
    from client.predict.prediction import weigh_modalities

    evidence = arguments.evidence or "none"
    good = [(case, sliced) for case, sliced in batch if not isinstance(sliced, DataError)]
    broken.update({case.id: str(error) for case, error in batch if isinstance(error, DataError)})
    named = str(arguments.mask_model)
    found = guided_answers(opened, good, guide, named, places=evidence == "all") if good else []
    return weigh_modalities(opened, found) if found and evidence != "none" else found


def _say_many(
    tables: list[dict[str, Any]], rows: Table, broken: dict[str, str], opened: "OpenedModel", arguments: argparse.Namespace
) -> None:
    from client.predict.prediction import NO_CALIBRATION, RESEARCH

    known = [table["ood"] is not None and table["ood"]["flagged"] is not None for table in tables]
    if arguments.json:
        print(json.dumps([*tables, *({"patient": name, "error": text} for name, text in broken.items())], indent=2))
    else:
        console = Console(highlight=False)
        if tables:
            console.print(rows)
        if tables and not tables[0]["calibrated"]:
            console.print(f"Probabilities are {NO_CALIBRATION}.", style="yellow")
        if not all(known):
            console.print(f"Not known for {known.count(False)} of {len(known)}: whether they are like the training patients.")
        if arguments.card and tables:
            console.print(f"Cards: {arguments.card}", markup=False, soft_wrap=True)
        console.print(RESEARCH)
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for name, text in broken.items():
        errors.print(f"No answer for {name}: {text}", style="red")
