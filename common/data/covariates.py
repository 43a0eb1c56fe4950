"""A patient's clinical covariates, from a row of the site's table to an array. A cell that cannot be read is a problem by name.

N patients, Q covariates.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.config.covariates import MISSING, Covariate
from common.data.headings import hint

NO_WORD = {"", MISSING, "na", "nan"}  # BIDS writes n/a, R writes NA, pandas nan or nothing


def of_row(cells: Mapping[str, str], covariates: Sequence[Covariate]) -> tuple[tuple[float, ...], list[str]]:
    """One patient's values in the run's order, NaN where one is missing, and what cannot be read.

    Args:
        cells: of the patient's row, by column; a column that is not there is missing.
        covariates: of the run.
    """
    values, problems = [], []
    for covariate in covariates:
        word = cells.get(covariate.name, "")
        value = math.nan if word.lower() in NO_WORD else covariate.read(word)
        if value is None:
            problems.append(f"{covariate.name} {word!r} is not {covariate.expected}; correct the table, or write n/a")
        values.append(math.nan if value is None else value)
    return tuple(values), problems


def absent_columns(table: str, header: Sequence[str], covariates: Sequence[Covariate]) -> list[str]:
    """A note for each covariate that the table has no column of."""
    columns = ", ".join(header)
    return [
        f"{table} has no column {c.name} (it has {columns}): the model is told nobody's {c.name} here"
        f"{f'. {told.strip()}'.removesuffix('.') if (told := hint(c.name, header)) else ''}"
        for c in covariates
        if c.name not in header
    ]


def as_array(values: Sequence[Sequence[float]], covariates: Sequence[Covariate]) -> NDArray[np.float32]:
    """[N, Q]; a patient of whom nothing was read has an empty row, and NaN in the array."""
    nothing = (math.nan,) * len(covariates)
    rows = [tuple(row) or nothing for row in values] if covariates else [()] * len(values)
    return np.array(rows, np.float32).reshape(len(rows), len(covariates))
