"""`fedmri-site import`: a hospital's DICOM, or a published collection, becomes a site folder. Nothing leaves this machine."""

import argparse
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.cli.main import main
from common.cli import add_debug
from common.config.modalities import DEFAULT_MODALITIES
from common.errors import ConfigError, DataError
from common.files import locked
from common.terminal.progress import long_work

if TYPE_CHECKING:
    from client.data.candidates import Candidate
    from client.data.intake import Options, Outcome
    from client.data.outcome_log import OutcomeLog

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

LIBRARIES = {"pydicom": "pydicom", "highdicom": "highdicom", "SimpleITK": "SimpleITK"}


def add_import(verbs: "Verbs") -> None:
    """Add the verb; at its end the new folder is checked by the whole command."""
    text = (
        "Make a site folder (BIDS) of DICOM files as scanners, archives and CDs leave them, or of a published collection. First "
        "a plan, which you read and correct; then, with --go, the folder. Nothing leaves this machine."
    )
    verb = verbs.add_parser("import", help="DICOM or a published collection becomes a site folder", description=text)
    verb.add_argument(
        "source", type=Path, metavar="SOURCE", help="a folder (with folders and zip archives in it), or a zip archive"
    )
    verb.add_argument("--plan", type=Path, metavar="plan.tsv", help="the plan; written, and with --go followed")
    verb.add_argument("--go", action="store_true", help="follow the plan")
    verb.add_argument("--out", type=Path, metavar="SITE", help="the site folder; patients that are in it stay as they are")
    verb.add_argument(
        "--home", type=Path, metavar="FOLDER", help="the site's home, for key, names and log (default: beside the plan)"
    )
    verb.add_argument("--preset", metavar="NAME", help="a published collection in NIfTI; `list` names them")
    verb.add_argument("--link", action="store_true", help="with --preset: link to the files instead of copying them")
    verb.add_argument("--labels", type=Path, metavar="TABLE", help="labels by patient_id (of a preset: its own table of labels)")
    verb.add_argument("--columns", metavar="A,B", default="", help="columns of --labels that participants.tsv gets")
    verb.add_argument(
        "--masks", type=Path, metavar="TABLE", help="tumour masks in NIfTI: patient_id, file, modality it was drawn on"
    )
    verb.add_argument("--age", action="store_true", help="keep the age in years (above 89: 89+)")
    verb.add_argument("--sex", action="store_true", help="keep the sex")
    verb.add_argument("--brain", default="auto", metavar="TOOL", help="what takes the skull off: auto, none, or a tool's name")
    add_debug(verb)
    verb.set_defaults(handler=_import)


def _import(arguments: argparse.Namespace) -> int:
    if arguments.preset:
        if arguments.preset != "list":
            _require_places(arguments)
        return _preset(arguments)
    _require_places(arguments)
    absent = [package for module, package in LIBRARIES.items() if not importlib.util.find_spec(module)]
    if absent:
        raise ConfigError(f"The import of DICOM needs {', '.join(absent)}. Install them: pip install 'fedmri[import]'.")
    if arguments.go and not (arguments.plan and arguments.out):
        raise ConfigError("--go follows a plan into a folder: name both, --plan plan.tsv and --out SITE.")
    if not arguments.go and not arguments.plan:
        raise ConfigError("Name the plan to write: --plan plan.tsv. Read and correct it, then come back with --go --out SITE.")
    return _dicom(arguments)


def _require_places(arguments: argparse.Namespace) -> None:
    """Refuse, before any header is read, what could only fail afterwards.

    Raises:
        ConfigError: no source; a site folder in it, or a plan that cannot be written or stands there already.
    """
    source, out, plan = arguments.source, arguments.out, arguments.plan
    if not source.exists():
        raise ConfigError(f"{source}: no such file or folder. Name what holds the images: a folder, or a zip archive.")
    if out and (out.resolve() == source.resolve() or source.resolve() in out.resolve().parents):
        raise ConfigError(
            f"--out {out}: is the source, or lies in it ({source}). Name another folder: the source stays as it is."
        )
    if out and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file. Name the site folder to make.")
    if plan and plan.is_dir():
        raise ConfigError(f"--plan {plan}: is a folder. Name a file, such as {plan / 'plan.tsv'}.")
    if plan and not plan.absolute().parent.is_dir():
        raise ConfigError(f"--plan {plan}: there is no folder {plan.absolute().parent}. Make it, or name another place.")
    if plan and plan.exists() and not arguments.go:
        raise ConfigError(f"{plan}: there is a plan already. Use it with --go, or move it away to have a new one made.")


def _dicom(arguments: argparse.Namespace) -> int:
    from client.data.brain_extraction import choose
    from client.data.intake import scan
    from client.data.outcome_log import OutcomeLog
    from client.data.plan import planned_patients, read_plan, write_plan
    from client.data.pseudonym import Pseudonyms

    home = (arguments.home or arguments.plan.absolute().parent).absolute()
    options = _options(arguments, choose(arguments.brain)) if arguments.go else None
    if arguments.go and not arguments.plan.is_file():
        raise ConfigError(f"{arguments.plan}: no such plan. Make it first, without --go.")
    names = Pseudonyms(home, make=not arguments.go)
    if arguments.go:
        names.require_known(planned_patients(arguments.plan))
    with _alone(home / "state") as scratch:
        log = OutcomeLog(home / "state" / "import.tsv")
        with long_work("Reading headers") as tick:
            found = scan(arguments.source, scratch, names, log, tick)
        names.keep_table()
        if options is None:
            write_plan(arguments.plan, found)
            log.write()
            _show_plan(found, arguments.plan, log)
            return 0
        return _follow(arguments, read_plan(arguments.plan, found), options, log)


def _follow(arguments: argparse.Namespace, lines: Any, options: "Options", log: "OutcomeLog") -> int:
    from client.data.brain_extraction import NONE, missing_sentence
    from client.data.intake import carry_out
    from client.data.site_folder import SiteFolder

    if not lines:
        log.write()
        raise DataError(f"{arguments.plan}: no line says yes under use. Set it for the series to import.")
    with long_work("Importing patients") as tick:
        outcome = carry_out(lines, SiteFolder(arguments.out), options, log, tick)
    _show_outcome(outcome, log)
    if options.brain == NONE:
        Console(soft_wrap=True).print(f"Note: {missing_sentence()}", markup=False, highlight=False)
    checked = main(["check", str(arguments.out)])
    return 1 if outcome.failed or checked else 0


def _options(arguments: argparse.Namespace, brain: str) -> "Options":
    from client.data.intake import Options
    from client.data.tables import read_table

    columns = tuple(column.strip() for column in arguments.columns.split(",") if column.strip())
    labels = read_table(arguments.labels, "patient_id") if arguments.labels else {}
    if bool(labels) != bool(columns):
        raise ConfigError("--labels and --columns go together: the table, and which of its columns participants.tsv gets.")
    absent = [column for column in columns if column not in next(iter(labels.values()))]
    if absent:
        raise ConfigError(f"--columns: {arguments.labels} has no column {', '.join(absent)}.")
    return Options(arguments.age, arguments.sex, labels, columns, _masks(arguments.masks), brain)


def _masks(path: Path | None) -> Any:
    from client.data.patient import TumourMask
    from client.data.tables import read_table

    masks = {}
    for patient, row in (read_table(path, "patient_id") if path else {}).items():
        file, modality = (path.parent / row.get("file", "")) if path else Path(), row.get("modality", "").lower()
        if not file.is_file():
            raise ConfigError(f"{path}: patient {patient}: no file {file}.")
        if modality and modality not in DEFAULT_MODALITIES:
            raise ConfigError(f"{path}: patient {patient}: modality {modality!r} is none of {', '.join(DEFAULT_MODALITIES)}.")
        masks[patient] = TumourMask(file, modality)
    return masks


def _show_plan(found: "list[Candidate]", plan: Path, log: "OutcomeLog") -> None:
    from client.data.candidates import RULE
    from client.data.outcome_log import ABSENT

    table = Table("modality", "series", "used", "to decide", title="What was found", title_justify="left")
    kinds = sorted({c.decision.modality for c in found})
    for kind in kinds:
        members = [c for c in found if c.decision.modality == kind]
        unsure = [c for c in members if not c.use and any("decide" in reason for reason in c.reasons)]
        table.add_row(Text(kind), str(len(members)), str(sum(c.use for c in members)), str(len(unsure)))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"Patients: {len({c.patient for c in found})}. How series are chosen: {RULE}.", markup=False, highlight=False)
    if log.count(ABSENT):
        console.print(
            f"Note: {log.count(ABSENT)} files that a DICOMDIR names are not in the source. Was it copied whole?",
            markup=False,
            highlight=False,
        )
    console.print(
        f"Plan: {plan}. Correct its columns use and modality, then come back with --go --out SITE.", markup=False, highlight=False
    )
    console.print(f"What became of every file: {log.path}", markup=False, highlight=False)


def _show_outcome(outcome: "Outcome", log: "OutcomeLog") -> None:
    console = Console(soft_wrap=True)
    for note in outcome.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    for patient, why in outcome.failed.items():
        console.print(f"Not imported: {patient}: {why}", style="red", markup=False, highlight=False)
    there = f" There already: {len(outcome.there_already)}." if outcome.there_already else ""
    console.print(f"Imported: {len(outcome.imported)} patients.{there} Not imported: {len(outcome.failed)}.", highlight=False)
    console.print(f"What became of every file: {log.path}", markup=False, highlight=False)


def _preset(arguments: argparse.Namespace) -> int:
    from client.data.collection import copy_collection
    from client.data.preset import PRESETS, read_preset

    console = Console(soft_wrap=True)
    if arguments.preset == "list":
        for name in PRESETS:
            console.print(f"{name}: {read_preset(name).title}", markup=False, highlight=False)
        return 0
    preset = read_preset(arguments.preset)
    if not arguments.out:
        raise ConfigError("Name the site folder to make: --out SITE.")
    with long_work("Importing patients") as tick:
        result = copy_collection(
            preset, arguments.source, arguments.out, table=arguments.labels, link=arguments.link, progress=tick
        )
    for note in result.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    for question in preset.questions:
        console.print(f"Open question: {question}", markup=False, highlight=False)
    console.print(f"Imported: {result.imported} patients. There already: {result.there_already}.", highlight=False)
    checked: int = main(["check", str(arguments.out)])
    return checked


@contextmanager
def _alone(state: Path) -> Iterator[Path]:
    """The one import under a home, and an empty folder for what archives hold: what a killed import left in it is removed.

    Raises:
        ConfigError: another import runs under this home: two would write one table of names and one of outcomes.
    """
    try:
        lock = locked(state / "import.lock", wait=False, mode=0o600)
    except BlockingIOError:
        raise ConfigError(f"Another import runs under {state.parent}. Wait for its end, or name another --home.") from None
    scratch = state / "unpacked"
    with lock:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
