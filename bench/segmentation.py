"""Segmentation on real hospitals, one of them left out: federated, pooled and peers from scratch, in this program without Flower.

    python bench/segmentation.py DATA WEIGHTS EXTERNAL OUT.json [KEY=VALUE ...] [--peers unet transunet] [--only NAME]

Peers are those of `simulation/peers/registry.py`; without `--peers` MONAI's U-Net alone. The same functions as
`fedmri-sim run --config segmentation`, one after the other on one thread, so that times can be compared.
What is done is kept in OUT.json, and a run that was cut off goes on after it; of other settings or hospitals it is refused. The
arrays of a federated or pooled model are kept beside it, and measured again if its entry is taken out.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from common.config.run import RunConfig, load_config
from common.data.cache import default_cache, open_site
from common.data.cases import Case, Site, read_site
from common.data.dataset import SiteData
from common.data.lesions import with_lesions
from common.evaluation.segmentation import Measured, beside, external_entry, measure_patients
from common.models.arrays import load_arrays, save_arrays
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.segment import Network, as_network
from simulation.baselines import train_alone
from simulation.in_process import federate
from simulation.peers.registry import PEERS
from simulation.peers.train import as_network as peer_network
from simulation.peers.train import train_peer

NAMED = {peer.name: peer for peer in PEERS.values()}


def opened(folder: Path, config: RunConfig) -> tuple[Site, SiteData]:
    """A site and its slices, with tumours."""
    cache = default_cache() / "slices"
    site = read_site(folder, config, simulated=True)
    return site, with_lesions(open_site(site, config.data, cache, workers=1), site, config.data, cache)


def external_cases(folder: Path, config: RunConfig) -> list[tuple[str, Case]]:
    """Its patients by name, those who are measured."""
    site, patients = opened(folder, config)
    return [(case.id, case) for case in site.only(patients.ids).cases]


def trained(name: str, sites: dict[str, SiteData], config: RunConfig, kept: Path) -> Network:
    """One of the models."""
    pooled = SiteData.pool(list(sites.values()), "pooled")
    if name in NAMED:
        return peer_network(train_peer(NAMED[name], pooled, config), config)
    model = build_model(config)
    if kept.is_file():
        return as_network(TrainedModel(model, load_arrays(kept)[0], config))
    arrays = federate(model, sites, config) if name == "federated" else train_alone(pooled, config, "pooled")[-1]
    save_arrays(kept, arrays, {"config": config.to_json()})
    return as_network(TrainedModel(model, arrays, config))


def main() -> None:
    """Train, measure, write."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("external", help="left out; several as NAME+NAME")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["unet"])
    parser.add_argument("--only", choices=("federated", "pooled", *NAMED))
    asked = parser.parse_args()
    recipe = Path(__file__).parents[1] / "configs" / "segmentation.toml"
    config = load_config(recipe, (f"weights={asked.weights}", *asked.settings))
    left_out = asked.external.split("+")
    names = [folder.name for folder in sorted(asked.data.iterdir()) if folder.is_dir() and folder.name not in left_out]
    sites = {name: opened(asked.data / name, config)[1] for name in names}
    cases = [case for name in left_out for case in external_cases(asked.data / name, config)]
    known = {"settings": asked.settings, "external": asked.external}
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else known
    if {key: found.get(key) for key in known} != known:
        raise SystemExit(f"{asked.out} holds results of other settings or another hospital. Name another file.")
    models = ("federated", *(PEERS[word].name for word in asked.peers), "pooled")
    for name in (asked.only,) if asked.only else models:
        if name in found:
            continue
        began, worked = time.monotonic(), time.process_time()
        network = trained(name, sites, config, asked.out.with_suffix(f".{name}.safetensors"))
        training = {"seconds": time.monotonic() - began, "processor": time.process_time() - worked}
        measured = measure_patients(network, cases, config)
        entry = external_entry(measured, config) | {"training": training, "patients": measured.patients}
        entry["processor"] = time.process_time() - worked
        found[name] = entry
        if name != "federated" and "federated" in found:
            first = Measured(found["federated"]["patients"]).known
            found[name] |= {"difference": beside(first, measured.known, config, "difference")["difference"]}
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, {key: entry[key] for key in ("dice", "jaccard", "hd95_mm", "empty")}, training, flush=True)


if __name__ == "__main__":
    main()
