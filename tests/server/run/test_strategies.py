"""A whole round in which one of three sites lies: what the median makes of it, and what FedAvg does."""

import numpy as np
import pytest

from common.config.run import config_from_table
from common.errors import ConfigError
from common.messages.round import pack_arrays, read_reply
from common.models.arrays import get_arrays, load_arrays
from common.models.build import build_model
from server.run.federate import federate
from tests.server.made_up_sites import plan, site_nodes

SITES = ("a", "b", "c")


@pytest.mark.parametrize("strategy", ["median", "fedavg"])
def test_one_liar_of_three(folder, tmp_path, local_grid, strategy):
    (folder / "c" / "sub-1").mkdir(parents=True)
    chosen = plan(folder, tmp_path / "run", SITES, rounds=1, strategy=strategy, min_sites=3)
    template, honest = get_arrays(build_model(chosen.config)), []

    def telling(node, factor):
        def respond(message):
            content = node(message)
            change = read_reply(content, template).update.change
            if factor == 1:
                honest.append(change)
            content["change"] = pack_arrays({name: np.float32(factor) * array for name, array in change.items()})
            return content

        return respond

    nodes = {number: telling(node, -20 if number == 3 else 1) for number, node in site_nodes(3).items()}
    federate(local_grid(nodes), chosen)
    arrays, _ = load_arrays(chosen.out / "model.safetensors")
    beyond = 0
    for name, array in arrays.items():
        values = np.stack([template[name] + change[name] for change in honest])
        beyond += int(((array < values.min(0) - 1e-6) | (array > values.max(0) + 1e-6)).sum())
    assert (beyond == 0) == (strategy == "median")


def test_two_sites_cannot_have_a_median():
    with pytest.raises(ConfigError, match=r'"median" needs 3 sites or more in every round, and federation\.min_sites = 2'):
        config_from_table({"federation": {"strategy": "median", "min_sites": 2}})
