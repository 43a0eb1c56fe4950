"""What is known of the patients to predict for besides their images: from the command line, or from the site's own table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.predict.inputs import SITE_FILE, PredictionInputs, site_home
from common.config.covariates import Covariate
from common.config.site import SiteConfig, read_site_config
from common.data.covariates import NO_WORD, of_row
from common.data.gate.participants import match_rows, one_row
from common.data.gate.tables import read_table
from common.errors import ConfigError

Rows = Sequence[Covariate]


def with_covariates(asked: PredictionInputs, path: Path | None, words: Sequence[str], rows: Rows) -> PredictionInputs:
    """The patients with what is known of them; one whose row cannot be read is named among the broken.

    Args:
        asked: of `client.predict.inputs`.
        path: that the command names; None: files were named one by one, and there is no table.
        words: of the command line, such as age=54, for one patient; they go before the table's.
        rows: the covariates of the model.

    Raises:
        ConfigError: words for several patients, of a covariate that the model does not take, or that cannot be read.
        DataError: a table that cannot be read.
    """
    said = dict(_pair(word, rows) for word in words)
    if said and not asked.single:
        raise ConfigError(f"--covariate {words[0]}: is of one patient. For a folder of them participants.tsv says it.")
    if len(said) != len(words):
        raise ConfigError(f"--covariate: expected each once, got {', '.join(words)}.")
    if not rows:
        return asked
    table = _table(path) if path else None
    names = tuple(row.name for row in rows)
    matched = match_rows(read_table(table, columns=names), _everybody(asked, path)) if table else None
    cases, broken = [], dict(asked.broken)
    for case in asked.cases:
        own = matched.rows.get(case.id, ()) if matched else ()
        cells, differing, _ = one_row(own, case.session, asked.told.get(case.id, {}), names)
        values, problems = of_row({**cells, **said}, rows)
        problems += [f"rows of {table.name} say different things: {text}" for text in differing if table]
        if problems and asked.single:
            raise ConfigError(f"Patient {case.id}: {'; '.join(problems)}.")
        if problems:
            broken[case.id] = "; ".join(problems)
        else:
            cases.append(replace(case, covariates=values))
    return replace(asked, cases=tuple(cases), broken=broken, findings=(*asked.findings, *(matched.findings if matched else ())))


def _everybody(asked: PredictionInputs, path: Path | None) -> set[str]:
    """Names of the patients, and of the folders beside a single one: a row that is theirs is not this patient's."""
    beside = path.absolute().parent.iterdir() if asked.single and path else ()
    return {*(case.id for case in asked.cases), *asked.broken, *(folder.name for folder in beside if folder.is_dir())}


def _pair(word: str, rows: Rows) -> tuple[str, str]:
    """Name and value of a word such as age=54.

    Raises:
        ConfigError: another form, no covariate of the model, or no value of it.
    """
    name, equals, value = (part.strip() for part in word.partition("="))
    row = next((row for row in rows if row.name == name), None)
    if not equals or row is None:
        takes = ", ".join(f"{row.name} ({row.expected})" for row in rows) or "none"
        raise ConfigError(f"--covariate {word}: expected NAME=VALUE, NAME one of those that this model takes: {takes}.")
    if value.lower() not in NO_WORD and row.read(value) is None:
        raise ConfigError(f"--covariate {word}: expected {row.expected}, or n/a.")
    return name, value


def _table(path: Path) -> Path | None:
    """The table of the patients: beside the nearest site.toml, in the data folder, or beside a patient's folder."""
    folder = path if path.is_dir() else path.parent
    home = site_home(folder)
    config = read_site_config(home / SITE_FILE) if home else SiteConfig()
    data = ((home or folder) / Path(config.data).expanduser()).resolve()
    places = (home, data, folder, folder.resolve().parent)
    return next((place / config.labels.table for place in places if place and (place / config.labels.table).is_file()), None)
