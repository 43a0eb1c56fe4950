"""A coordinator's own small weights reach hospitals that lack them, through their real gates, and nobody a second time."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from safetensors.numpy import save

from client.gate.approvals import approve
from client.gate.gate import Gate
from common.config.run import config_from_table
from common.messages.round import Task
from common.messages.weights import MAX_BYTES
from common.models.backbones.kept_weights import keep_bytes, kept_file
from common.models.backbones.weights import SHIPPED
from server.run.plan import RunPlan
from server.run.weights import Supplier, supplier
from server.strategy.progress import Progress
from server.strategy.round_state import Address

CONTENT = save({"a": np.arange(6, dtype=np.float32)})
AGREED = hashlib.sha256(CONTENT).hexdigest()
CODE = b"the approved bundle"
NAMES = ("has", "lacks", "refuses")


@pytest.fixture
def homes(tmp_path) -> dict[str, Path]:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "site.toml").write_text(f"[policy]\ntake_weights = {str(name != 'refuses').lower()}\n")
        approve(tmp_path / name, hashlib.sha256(CODE).hexdigest())
    keep_bytes(tmp_path / "has" / "weights", CONTENT, AGREED)
    return {name: tmp_path / name for name in NAMES}


def test_who_lacks_them_gets_them_once(homes, tmp_path, local_grid) -> None:
    def node(name: str):
        context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
        return lambda message: Gate(homes[name] / "site.toml").answer(message, context, CODE)[0]

    (tmp_path / "own.safetensors").write_bytes(CONTENT)
    grid = local_grid({number: node(name) for number, name in enumerate(NAMES, start=1)})
    give = Supplier(Task(1, "", "code", AGREED, "r1"), tmp_path / "own.safetensors", 30.0, Progress())
    there = [Address(name, number, "") for number, name in enumerate(NAMES, start=1)]
    give(grid, 1, there[:2])
    assert len(grid.sent) == 3  # both are asked, one is sent them
    give(grid, 2, there)
    assert [message.metadata.dst_node_id for message in grid.sent[3:]] == [3]  # who joins late
    give(grid, 3, there[:2])
    assert len(grid.sent) == 4
    found = {name: kept_file(home / "weights", AGREED) is not None for name, home in homes.items()}
    assert found == {"has": True, "lacks": True, "refuses": False}


@pytest.mark.parametrize(
    ("weights", "file", "sites", "handed"),
    [
        ("own.safetensors", "own.safetensors", (), True),
        ("phantom", str(SHIPPED), (), False),  # everybody has it
        ("own.pth", "own.pth", (), False),  # a pickle does not travel
        ("big.safetensors", "big.safetensors", (), False),
        ("own.safetensors", "own.safetensors", ("a",), False),  # a simulation reads one disk
        ("hub", "", (), False),
    ],
)
def test_what_is_handed_out(tmp_path, weights, file, sites, handed) -> None:
    for name, size in (("own.safetensors", 10), ("own.pth", 10), ("big.safetensors", MAX_BYTES + 1)):
        with (tmp_path / name).open("wb") as content:
            content.truncate(size)
    config = config_from_table({"model": {"weights": weights}})
    path = str(tmp_path / file) if file else ""
    plan = RunPlan(config, tmp_path, sites, ("x",), tmp_path, tmp_path, weights=path)
    assert (supplier(plan, Task(1, "", "", "", ""), Progress()) is not None) is handed
