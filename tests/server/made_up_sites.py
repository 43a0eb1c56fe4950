"""Whole runs in this process: three site folders and an external one, whose patients are made up in memory."""

import tomllib
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client.round.dispatch import answer
from common.config.run import config_from_table
from common.data.dataset import SiteData
from server.run.plan import RunPlan

TINY = """
[data]
size = 32
slices = 2
[model]
backbone = "fedmri_vit_mini"
weights = "random"
rank = 2
head_hidden = 8
head_bottleneck = 4
[objective]
local_crops = 1
[training]
batch_size = 4
precision = "fp32"
[federation]
rounds = 2
round_retries = 1
[evaluation]
bootstrap = 20
"""


def hospital(name: str, labels) -> SiteData:
    rng = np.random.default_rng(sum(name.encode()))
    n = len(labels)
    images = rng.random((n, 2, 4, 32, 32)).astype(np.float16)
    ids = tuple(f"sub-{i}" for i in range(n))
    return SiteData(name, ids, images, np.ones((n, 4), bool), np.array(labels, np.int64), name)


def plan(folder: Path, out: Path, sites=("a", "b", "broken"), resume=False, sections=None, **federation) -> RunPlan:
    table = tomllib.loads(TINY)
    for name, section in (sections or {}).items():
        table[name] = table.get(name, {}) | section
    table["federation"] |= federation
    return RunPlan(config_from_table(table), folder, sites, ("ext",), out, folder / "cache", resume)


def site_nodes(many: int = 2):
    """Nodes that answer as real ones do, each with a memory of its own."""

    def node(state: RecordDict):
        return lambda message: answer(message.content, {}, state)

    return {number: node(RecordDict()) for number in range(1, many + 1)}
