"""`personal` of report.json: what of the model each site has of its own, and both models on its own held-back patients."""

from dataclasses import dataclass
from typing import Any

from server.report.decode import names, real, table, whole


@dataclass(frozen=True)
class OneModel:
    """A model at a site. `classes`: name, right, of so many; empty, and `patients` None, where the site keeps its numbers."""

    loss: float | None
    recall: float | None
    patients: int | None
    classes: tuple[tuple[str, int | None, int | None], ...]


@dataclass(frozen=True)
class OwnModels:
    """What was kept, and by site the global model and its own. `why`: nobody was asked; else ""."""

    kept: tuple[str, ...]
    arrays: tuple[str, ...]
    ditto_lambda: float | None
    why: str
    sites: tuple[tuple[str, OneModel, OneModel], ...]
    failures: tuple[tuple[str, str], ...]


def decode_own_models(value: Any) -> OwnModels | None:
    """From report.json; None where sites have nothing of their own."""
    entry = table(value)
    if not entry:
        return None
    sites = ((str(site), table(told)) for site, told in table(entry.get("sites")).items())
    return OwnModels(
        kept=names(entry.get("kept")),
        arrays=names(entry.get("arrays")),
        ditto_lambda=real(entry.get("ditto_lambda")),
        why=str(entry.get("why") or ""),
        sites=tuple((site, _model(told.get("global")), _model(told.get("own"))) for site, told in sites),
        failures=tuple((str(site), str(why)) for site, why in table(entry.get("failures")).items()),
    )


def _model(value: Any) -> OneModel:
    entry = table(value)
    classes = ((str(name), table(told)) for name, told in table(entry.get("classes")).items())
    return OneModel(
        real(entry.get("loss")),
        real(entry.get("recall")),
        whole(entry.get("patients")),
        tuple((name, whole(told.get("right")), whole(told.get("of"))) for name, told in classes),
    )
