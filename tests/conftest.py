"""Fixtures that several rooms share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job: the programs that tests interrupt inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

GPU = torch.cuda.is_available()
CHECKOUT = Path(__file__).resolve().parents[1]
# Files of a minute or more, begun first, or one worker idles while the other ends. Those that start many processes stand apart:
# two workers share two cores.
LONG = (
    "tests/integration/deployment/test_approval.py",
    "tests/server/run/test_calibrate.py",
    "tests/server/run/test_resume.py",
    "tests/server/run/test_stage.py",
    "tests/integration/deployment/test_first_run.py",
    "tests/server/release/test_export.py",
    "tests/integration/test_flwr_run.py",
    "tests/server/release/test_graphs_pooling.py",
    "tests/common/privacy/test_accounting.py",
    "tests/server/deployment/test_submit.py",
    "tests/server/run/test_low_rank.py",
    "tests/integration/test_pool_engine.py",
    "tests/integration/test_cluster.py",
    "tests/client/privacy/test_round_audit.py",
    "tests/client/privacy/test_audit.py",
    "tests/simulation/test_auditing.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; with xdist, `--no-loadscope-reorder` keeps it so, where it would begin with the files of most tests."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(scope="session", autouse=True)
def _hidden_gpu() -> Iterator[pytest.MonkeyPatch]:
    """Hide GPUs from this process; every fixture of the session comes after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield patch


@pytest.fixture
def gpu(_hidden_gpu: pytest.MonkeyPatch) -> Iterator[None]:
    """Show them to a test that asks for one."""
    if not GPU:
        pytest.skip("no GPU here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        yield


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, CHECKOUT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"real {name} are not here: expected {folder.name}/ beside the checkout, or {variable} to name a folder")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MRI (`tcga-lgg/`, `cases/`), or a skip that says why."""
    return _shared("data", "FEDMRI_REAL_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The DeiT-Tiny weights file, or a skip that says why."""
    return _shared("weights", "FEDMRI_REAL_WEIGHTS") / "deit_tiny_patch16_224.fp16.safetensors"
