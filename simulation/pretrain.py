"""Pre-train the small backbone that is shipped: this project's own objective, no label, phantoms of another seed."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from common.config.run import RunConfig
from common.config.site import find_sites
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.dataset import SiteData
from common.errors import ConfigError
from common.files import write_atomic
from common.models.arrays import Arrays, get_arrays
from common.models.build import build_model
from common.training.local import train_round
from simulation.phantom import write_hospitals

Progress = Callable[[str, int, int], None]


def pretrain(config: RunConfig, patients: int, seed: int, out: Path, progress: Progress) -> None:
    """Make the phantoms, train the whole backbone on them, write it as timm's own parameter names in half precision.

    Args:
        config: with `model.adapter = "full"` and `model.weights = "random"`.
        patients: of each of four phantom hospitals.
        seed: of the phantoms; the demo's is another.
        out: the safetensors file.
        progress: called with how far the phantoms and the training are.

    Raises:
        ConfigError: an adapter that does not train the backbone.
    """
    if not config.model.adapter.trains_backbone:
        raise ConfigError(
            f'model.adapter: pre-training trains the whole backbone, so expected "full", got "{config.model.adapter.name}".'
        )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        write_hospitals(
            data,
            sites=4,
            patients=patients,
            external=0,
            seed=seed,
            progress=lambda done, total: progress("phantoms", done, total),
        )
        pool = _without_labels(data, Path(folder) / "cache", config)
        model = build_model(config)
        arrays = get_arrays(model)
        for number in range(1, config.federation.rounds + 1):
            arrays = train_round(
                model,
                arrays,
                pool,
                config,
                round_number=number,
                site_seed=config.seed + number,
                progress=lambda done, total: progress("pre-training", done, total),
            ).arrays
    write_atomic(out, save(backbone_arrays(arrays), metadata={"backbone": config.model.backbone, "config": config.to_json()}))


def backbone_arrays(arrays: Arrays) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    """The ViT's arrays alone, by timm's names, in half precision."""
    return {name.removeprefix("vit."): array.astype(np.float16) for name, array in arrays.items() if name.startswith("vit.")}


def _without_labels(data: Path, cache: Path, config: RunConfig) -> SiteData:
    """All phantoms as one; the shipped weights have seen no label."""
    sites = [open_site(read_site(folder, config, simulated=True), config.data, cache) for folder in find_sites(data)]
    pool = SiteData.pool(sites, "phantoms")
    return SiteData(pool.name, pool.ids, pool.images, pool.present, np.full_like(pool.labels, -1), pool.key)
