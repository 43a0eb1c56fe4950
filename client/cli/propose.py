"""`fedmri-site predict` with a model that segments: a proposed mask of each patient, in files that say that nobody drew it."""

import argparse
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.config.axes import on_volumes
from common.config.volume import require_slices
from common.errors import ConfigError, DataError, FedMRIError
from common.files import write_atomic
from common.terminal.progress import long_work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.predict.inputs import PredictionInputs
    from client.predict.proposal import Proposal
    from common.config.run import RunConfig
    from common.data.cases import Case
    from common.model_files.opened_model import OpenedModel

UNFIT = re.compile(r"[^\w.-]+")  # for a file's name


def require_options(arguments: argparse.Namespace, *, single: bool, segments: bool) -> None:
    """Refuse options that belong to the other kind of model, before anything is computed.

    Raises:
        ConfigError: names the option, and what is wanted.
    """
    if not segments:
        for name in ("masks", "dicom"):
            if getattr(arguments, name):
                raise ConfigError(
                    f"--{name}: the model predicts a class, and writes no masks. Name one that segments, or --mask-model."
                )
        return
    for name in ("card", "evidence", "mask_model"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name.replace('_', '-')}: the model segments, and predicts no class. Leave the option out.")
    if not arguments.masks:
        raise ConfigError("predict: the model segments. Name a folder for the proposed masks: --masks DIR.")
    if arguments.dicom and not single:
        raise ConfigError("--dicom: names the series of one patient. Ask for one patient at a time.")


def require_volume_options(arguments: argparse.Namespace, config: "RunConfig", *, single: bool) -> None:
    """Of a model of whole volumes: refuse what draws squares of slices, and leave the evidence by modality as the most.

    Raises:
        ConfigError: names the option.
    """
    if not on_volumes(config.data):
        return
    for name in ("card", "mask_model"):
        if getattr(arguments, name):
            require_slices(config, f"--{name.replace('_', '-')}")
    if arguments.evidence == "all":
        raise ConfigError(
            "--evidence all: the model sees whole volumes in cubes, and evidence by place is told slice by slice. Take "
            "--evidence modalities."
        )
    arguments.evidence = arguments.evidence or ("modalities" if single else "none")


def propose_all(asked: "PredictionInputs", opened: "OpenedModel", arguments: argparse.Namespace) -> int:
    """Write a mask of each patient; one that fails is named, and the others go on."""
    require_apart(asked.cases)
    broken, tables = dict(asked.broken), list[dict[str, Any]]()
    with long_work(f"Segmenting {len(asked.cases)} patient{'s' * (len(asked.cases) != 1)}") as report:
        for done, case in enumerate(asked.cases, start=1):
            try:
                tables.append(_one(case, opened, arguments))
            except DataError as error:
                if asked.single:
                    raise
                broken[case.id] = str(error)
            report(done, len(asked.cases))
    _say(tables, broken, asked, arguments)
    return 1 if broken else 0


def stem_of(patient: str) -> str:
    """What files of a patient begin with."""
    return UNFIT.sub("_", patient).lstrip(".") or "patient"


def require_apart(cases: "Iterable[Case]") -> None:
    """Refuse patients whose files would have one name: the second's would take the place of the first's.

    Raises:
        DataError: names two of them.
    """
    named = dict[str, str]()
    for case in cases:
        other = named.setdefault(stem_of(case.id), case.id)
        if other != case.id:
            raise DataError(f"--masks: files of {other!r} and {case.id!r} would have one name. Ask for one of them at a time.")


def _one(case: "Case", opened: "OpenedModel", arguments: argparse.Namespace) -> dict[str, Any]:
    from client.predict.dicom_seg import read_series, seg_of
    from client.predict.mask_file import NAME, nifti_of
    from client.predict.proposal import propose

    images = read_series(arguments.dicom) if arguments.dicom else []  # refused before the model runs
    found = propose(opened, case)
    stem = f"{stem_of(case.id)}_{NAME}"
    contents = {"nifti": (f"{stem}.nii.gz", nifti_of(found))}
    if images:  # both, or neither
        contents["dicom_seg"] = (f"{stem}.dcm", seg_of(found, images, version("fedmri")))
    files = {kind: _written(arguments.masks / name, content) for kind, (name, content) in contents.items()}
    return {
        "patient": case.id,
        "proposed": True,
        "files": files,
        "ml": found.ml,
        "space": found.modality,
        "modalities": list(found.used),
        "drawn": _drawn(found, opened),
        "unfinished": opened.unfinished or None,
        "note": found.note,
    }


def _drawn(found: "Proposal", opened: "OpenedModel") -> dict[str, Any] | None:
    """The agreement with the mask that the patient has; None where there is none."""
    from common.data.gate.patient import read_patient
    from common.metrics.segmentation import agreement

    if found.case.mask is None:
        return None
    read = read_patient(found.case, opened.config.data)
    return agreement(found.mask, read.region, read.reference.spacing).as_json() if read.tumour else None


def _written(path: Path, content: bytes) -> str:
    """The file's path, once it is there whole.

    Raises:
        FedMRIError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise FedMRIError(f"--masks {path}: cannot be written ({error.strerror or error}). Name a folder to write to.") from error
    return str(path)


def _say(tables: list[dict[str, Any]], broken: dict[str, str], asked: "PredictionInputs", arguments: argparse.Namespace) -> None:
    from client.predict.proposal import NOTE

    if arguments.json:
        failed = [{"patient": name, "error": text} for name, text in broken.items()]
        print(json.dumps(tables[0] if asked.single else [*tables, *failed], indent=2))
    else:
        shown = Table("patient", "proposed, ml", "space of", "modalities", "Dice with the drawn mask", "file")
        for row in tables:
            dice = f"{row['drawn']['dice']:.2f}" if row["drawn"] else "none drawn"
            cells = (row["patient"], f"{row['ml']:.1f}", row["space"], "+".join(row["modalities"]), dice)
            shown.add_row(*map(Text, cells), Text(", ".join(row["files"].values()), overflow="fold"))
        console = Console(highlight=False)
        console.print(shown)
        console.print(NOTE, soft_wrap=True)
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for row in tables:
        if not row["ml"]:
            errors.print(f"{row['patient']}: {row['note']}", style="yellow")
    for name, text in broken.items():
        errors.print(f"No mask for {name}: {text}", style="red")
