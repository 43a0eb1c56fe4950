"""One patient's prediction as one self-contained HTML page: embedded pictures, no script, no network, printable."""

import base64
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from client.predict.confidence import calibration_words, covariate_words, likeness_words, set_words, warning
from client.predict.prediction import LIMITS, RESEARCH, Answer, answer_table
from common.config.axes import how_shown, in_words
from common.evaluation.explanation.picture import overlay_png, slice_png, strength


def render_card(one: Answer) -> str:
    """The page."""
    shown = how_shown(one.config.data)
    return _template().render(
        table=answer_table(one),
        answer=one,
        warning=warning(one),
        calibration=calibration_words(one),
        set_words=set_words(one),
        likeness=likeness_words(one),
        shown=shown[0].upper() + shown[1:],
        fields=in_words(one.config.data),
        strongest=f"{strength(one.by_place):.2g}" if one.by_place is not None else "",
        research=RESEARCH,
        limits=LIMITS,
        rows=_pictures(one),
        drops=_drops(one),
        covariates=covariate_words(one),
        covariate_drops=_covariate_drops(one),
    )


def _pictures(one: Answer) -> list[dict[str, Any]]:
    """A row for each modality: its slices, each with the evidence as a small picture to be laid over it."""
    places = one.by_place
    scale = strength(places) if places is not None else 0.0
    rows = []
    for m, name in enumerate(one.config.data.modalities):
        if one.sliced.present[m]:
            tiles = [
                {
                    "what": what,
                    "slice": _uri(slice_png(one.sliced.images[s, m])),
                    "over": _uri(overlay_png(places[s, m], scale)) if places is not None else "",
                }
                for s, what in enumerate(one.slice_names)
            ]
            rows.append({"name": name.upper(), "tiles": tiles})
    return rows


def _drops(one: Answer) -> list[dict[str, Any]]:
    """Evidence by modality with the width of its bar in percent."""
    if one.by_modality is None:
        return []
    return _bars([m.upper() for m in one.config.data.modalities], one.by_modality)


def _covariate_drops(one: Answer) -> list[dict[str, Any]]:
    """Evidence by covariate, as by modality."""
    names = [f"{name} {value}" for name, value in one.covariates.items()]
    return [] if one.by_covariate is None or not one.by_covariate.size else _bars(names, one.by_covariate)


def _bars(names: Sequence[str], values: NDArray[np.float64]) -> list[dict[str, Any]]:
    known = [(name, float(v)) for name, v in zip(names, values, strict=True) if np.isfinite(v)]
    largest = max([abs(v) for _, v in known], default=0.0) or 1.0
    return [{"name": name, "value": v, "width": 100 * abs(v) / largest} for name, v in known]


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return environment.get_template("card.html")
