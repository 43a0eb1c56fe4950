"""Segmentation on real hospitals, one of them left out: federated, pooled and MONAI's U-Net, in this program without Flower.

    python bench/segmentation.py DATA WEIGHTS EXTERNAL OUT.json [KEY=VALUE ...]

The same functions as `fedmri-sim run --config segmentation`, one after the other on one thread, so that times can be
compared.
What is done is kept in OUT.json, and a run that was cut off goes on after it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from common.config.run import RunConfig, load_config
from common.data.cache import default_cache, open_site
from common.data.cases import Site, read_site
from common.data.dataset import SiteData
from common.data.lesions import with_lesions
from common.evaluation.segmentation import Measured, beside, external_entry, measure_patients
from common.models.build import build_model
from common.models.trained_model import TrainedModel
from common.training.segment import Network, as_network
from simulation import monai_unet
from simulation.baselines import train_alone
from simulation.in_process import federate


def opened(folder: Path, config: RunConfig) -> tuple[Site, SiteData]:
    """A site and its slices, with tumours."""
    cache = default_cache() / "slices"
    site = read_site(folder, config, simulated=True)
    return site, with_lesions(open_site(site, config.data, cache, workers=1), site, config.data, cache)


def trained(name: str, sites: dict[str, SiteData], config: RunConfig) -> Network:
    """One of the three models."""
    pooled = SiteData.pool(list(sites.values()), "pooled")
    if name == monai_unet.NAME:
        return monai_unet.as_network(monai_unet.train_unet(pooled, config), config)
    model = build_model(config)
    arrays = federate(model, sites, config) if name == "federated" else train_alone(pooled, config, "pooled")[-1]
    return as_network(TrainedModel(model, arrays, config))


def main(data: Path, weights: str, external: str, out: Path, settings: list[str]) -> None:
    """Train, measure, write."""
    torch.set_num_threads(1)
    config = load_config(Path(__file__).parents[1] / "configs" / "segmentation.toml", (f"weights={weights}", *settings))
    names = [folder.name for folder in sorted(data.iterdir()) if folder.is_dir() and folder.name != external]
    sites = {name: opened(data / name, config)[1] for name in names}
    site, patients = opened(data / external, config)
    cases = [(case.id, case) for case in site.only(patients.ids).cases]
    found: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    for name in ("federated", monai_unet.NAME, "pooled"):
        if name in found:
            continue
        began, worked = time.monotonic(), time.process_time()
        network = trained(name, sites, config)
        training = {"seconds": time.monotonic() - began, "processor": time.process_time() - worked}
        measured = measure_patients(network, cases, config)
        entry = external_entry(measured, config) | {"training": training, "patients": measured.patients}
        entry["processor"] = time.process_time() - worked
        found[name] = entry
        if name != "federated":
            first = Measured(found["federated"]["patients"]).known
            found[name] |= {"difference": beside(first, measured.known, config, "difference")["difference"]}
        out.write_text(json.dumps({"settings": settings, "external": external} | found, indent=1) + "\n")
        print(name, {key: entry[key] for key in ("dice", "jaccard", "hd95_mm", "empty")}, training, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5:])
