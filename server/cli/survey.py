"""`fedmri-server survey`: what the connected hospitals have, before anything trains."""

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from common.errors import FedMRIError
from server.deployment.acts import SURVEY, acting
from server.deployment.home import open_home
from server.deployment.submit import Submission, follow, submit
from server.report.survey import survey_table, write_survey_page
from server.run.survey import NAME


def survey(arguments: argparse.Namespace) -> int:
    """The verb; 0 once at least one hospital has answered and the page is written."""
    home = open_home(arguments.home)
    out = arguments.out or home.runs / datetime.now().strftime("survey-%Y%m%d-%H%M%S")
    with acting(home, SURVEY, out=str(out), config=arguments.config):
        taken = submit(home, Submission(arguments.config, tuple(arguments.settings), (), out, survey=True))
    Console(stderr=True, soft_wrap=True).print(f"Survey {taken.id} is on its way; bundle {taken.bundle}", highlight=False)
    follow(home, taken, lambda _: None)
    return show(taken.out, read_survey(taken.out), as_json=arguments.json)


def show(out: Path, found: Mapping[str, Any], *, as_json: bool) -> int:
    """A page, and a table or JSON."""
    page = write_survey_page(out, found)
    if as_json:
        print(json.dumps({**found, "page": str(page)}))
        return 0
    console = Console()
    console.print(survey_table(found))
    for name, why in found["failures"].items():
        console.print(f"{name} told nothing: {why}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Page: {page}", soft_wrap=True, markup=False, highlight=False)
    return 0


def read_survey(out: Path) -> dict[str, Any]:
    """OUT/survey.json.

    Raises:
        FedMRIError: it is not there, or damaged.
    """
    try:
        found = json.loads((out / NAME).read_text(encoding="utf-8"))
        return {"sites": dict(found["sites"]), "total": dict(found["total"]), "failures": dict(found["failures"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FedMRIError(f"{out / NAME}: cannot be read ({error}).") from error
