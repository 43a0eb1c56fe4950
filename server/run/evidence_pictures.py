"""Pictures of external patients for the report, where the external hospital's policy allows them: slices with evidence by place.

N patients, C classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config.axes import plane_names
from common.config.site import SitePolicy, read_site_config
from common.data.dataset import SiteData
from common.evaluation.calibration.calibration import UNSCALED, Scaling
from common.evaluation.explanation.attribution import place_evidence
from common.evaluation.explanation.picture import draw_evidence
from common.files import write_atomic
from common.models.trained_model import TrainedModel

FOLDER = "evidence"
SHOWN = 12  # patients


def may_be_shown(folder: Path, names: Sequence[str], patients: SiteData) -> NDArray[np.bool_]:
    """Whose slices may be shown in a report, [N]: patients of sites whose `policy.share_pictures` allows it.

    Args:
        folder: of the sites, as `server.run.external.open_external` took it.
        names: of the sites, likewise; ids of patients of several sites are `site/id`.
        patients: N, of these sites.
    """
    allowed = {name: _policy(folder / name).share_pictures for name in names}
    if len(names) == 1:
        return np.full(len(patients), allowed[names[0]])
    # Named by the site's own word for itself, which may be another than its folder's: unknown ones are not shown.
    named = [(read_site_config(folder / name).name or name, allowed[name]) for name in names]
    shown = {own for own, _ in named} - {own for own, yes in named if not yes}  # of two with one name the stricter decides
    return np.array([patient.partition("/")[0] in shown for patient in patients.ids])


def draw_pictures(
    run: Path,
    trained: TrainedModel,
    patients: SiteData,
    probabilities: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    *,
    limit: int = SHOWN,
    scaling: Scaling = UNSCALED,
) -> dict[int, str]:
    """Draw pictures of at most `limit` patients: wrong predictions first, then the least certain.

    Args:
        run: the pictures go into its folder `evidence`; no patient's id is in their names.
        trained: a model and its arrays.
        patients: N, external.
        probabilities: [N, C], as the report shows them.
        allowed: [N], see `may_be_shown`.
        limit: pictures at most.
        scaling: of the calibration.

    Returns:
        {row of the patient: file name}, to stand as `picture` in report.json.
    """
    rows = most_telling(patients.labels, probabilities, allowed, limit)
    if not rows:
        return {}
    chosen = patients.select(rows)
    _, places = place_evidence(trained, chosen, scaling=scaling)
    names, data = {}, trained.config.data
    for i, row in enumerate(rows):
        names[row] = f"patient-{row:04d}.png"
        present, planes = chosen.present[i].tolist(), plane_names(data)
        step = trained.model.thickness  # of a layer of cubes the slice in its middle
        images, planes = chosen.images[i][step // 2 :: step], planes[step // 2 :: step]
        picture = draw_evidence(images, places[i], data.modalities, present, names=planes)
        write_atomic(run / FOLDER / names[row], picture)
    return names


def most_telling(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], allowed: NDArray[np.bool_], limit: int
) -> list[int]:
    """Rows of at most `limit` patients: the wrong ones, least certain first, then all others, least certain first."""
    right = (probabilities.argmax(1) == labels) | (labels < 0)
    order = np.lexsort((probabilities.max(1), right))
    return [int(row) for row in order if allowed[row]][:limit]


def _policy(site: Path) -> SitePolicy:
    """A folder without site.toml belongs to the researcher, as in `read_site(simulated=True)`."""
    config = read_site_config(site)
    return config.policy if (site / "site.toml").exists() else SitePolicy.simulation()
