"""The dense model as files that need none of our code: ONNX, for any runtime, and TorchScript, for the MONAI bundle.

Both take images [B, S, M, H, W] and present [B, M] (bool) and give calibrated probabilities [B, C], for any B. Where the run has
clinical covariates they take covariates [B, Q] (float32) too: numbers in their own unit (age in years), a category by its place
among the values, NaN where one is missing.
"""

import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from common.config.axes import squares
from common.config.sections import DataConfig
from common.errors import ConfigError, FedMRIError
from common.model_files.dense import DenseModel

INPUTS, COVARIATES, OUTPUT = ("images", "present"), "covariates", "probabilities"
EXTRA = ("onnx", "onnxruntime", "onnxscript", "fire")  # fire: the command line of `python -m monai.bundle`


def require_packages() -> None:
    """Refuse to begin what could not be finished.

    Raises:
        ConfigError: names the packages that are missing, and the extra that brings them.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(f"Exporting needs {', '.join(missing)}: install the extra `export` (pip install -e '.[export]').")


def write_onnx(path: Path, dense: DenseModel, data: DataConfig) -> None:
    """One ONNX file, weights inside; the batch axis is free."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            dense,
            example(data),
            dynamo=True,
            input_names=list(inputs_of(data)),
            output_names=[OUTPUT],
            dynamic_shapes=tuple({0: batch} for _ in inputs_of(data)),
            verbose=False,
        )
    if program is None:
        raise FedMRIError("torch.onnx.export gave no program. Install the versions in constraints.txt.")
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with this machine's paths
    program.save(str(path), external_data=False)


def write_torchscript(path: Path, dense: DenseModel, data: DataConfig) -> None:
    """One TorchScript file, which `torch.jit.load` opens without any Python code."""
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(dense, example(data), check_trace=False)  # checked later
        torch.jit.save(traced, str(path))
    _strip(path)


def _strip(path: Path) -> None:
    """Leave out the debugging tables of a TorchScript archive: they hold this machine's paths."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def inputs_of(data: DataConfig) -> tuple[str, ...]:
    """Names of the graph's inputs, in order."""
    return (*INPUTS, COVARIATES) if data.covariates else INPUTS


def example(data: DataConfig) -> tuple[Tensor, ...]:
    """Two patients to trace with: one who has all modalities, one who has the first only; nothing else is known of them."""
    modalities = len(data.modalities)
    images = torch.zeros(2, len(squares(data)), modalities, data.size, data.size)
    present = torch.ones(2, modalities, dtype=torch.bool)
    present[1, 1:] = False
    covariates = (torch.full((2, len(data.covariates)), torch.nan),) if data.covariates else ()
    return images, present, *covariates


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk of their own insides, to people who cannot change them; what counts is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
