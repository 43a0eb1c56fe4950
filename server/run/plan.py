"""A run's settings, read from Flower's run configuration and checked before anything is opened."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.cli import config_path
from common.config.run import RunConfig, load_config
from common.config.site import find_sites
from common.data.cache import default_cache
from common.errors import ConfigError, FederationError
from common.messages.code_version import code_hash
from common.models.backbones.weights import SHIPPED_FILES, WITHOUT_FILE
from common.run_folder import CHECKPOINTS, MODEL_NAME, REPORT_NAME

RUN_NAME = "run.json"
NAMED_WEIGHTS = (*WITHOUT_FILE, *SHIPPED_FILES)  # by `model.weights`; anything else is a file's path
FOLDERS, NODES = "folders", "nodes"  # what stands for a site: a folder of the simulation, or a hospital's node


@dataclass(frozen=True)
class RunPlan:
    """A run's settings, read and checked."""

    config: RunConfig
    data: Path  # folder of the site folders; at a real federation of the external one alone
    sites: tuple[str, ...]  # training sites, sorted; empty at a real federation: every connected node is one
    external: tuple[str, ...]  # held-out sites
    out: Path
    cache: Path
    resume: bool = False  # go on with the run that `out` holds
    agreed: Mapping[str, int] = field(default_factory=dict)  # patients that were agreed with each hospital, where any were
    weights: str = ""  # this machine's file of the frozen weights; "": what `model.weights` says: a bundle carries none


def travelling_config(plan: RunPlan) -> RunConfig:
    """The configuration as sites are sent it: to hospitals without a path of the server's."""
    config = plan.config
    if plan.sites or config.model.weights in NAMED_WEIGHTS:
        return config
    # The hash is what counts; the name tells the hospital which file it lacks.
    return replace(config, model=replace(config.model, weights=Path(config.model.weights).name))


def run_folder(run_config: Mapping[str, Any], run_id: int) -> Path:
    """Where the run's results go: `out`, or a folder of its own under the cache."""
    out = str(run_config.get("out", ""))
    return Path(out).expanduser() if out else default_cache() / "runs" / str(run_id)


def read_plan(run_config: Mapping[str, Any], out: Path) -> RunPlan:
    """Read Flower's run configuration (the keys of `[tool.flwr.app.config]`).

    Raises:
        ConfigError: a wrong setting, no training site, or an external site that is not there.
        FederationError: this is not the code that was started, `out` already holds a run, or none that could be resumed.
    """
    expected = str(run_config.get("code", ""))
    if expected and expected != code_hash():
        raise FederationError(
            f"Flower runs other code ({code_hash()[:12]}) than the one that started the run ({expected[:12]}). "
            "Use a SuperLink of its own, started in an empty directory."
        )
    resume = run_config.get("resume", False)
    if not isinstance(resume, bool):
        raise ConfigError(f"Run configuration key 'resume': expected true or false, got {resume!r}.")
    require_folder(out, resume=resume)
    cache = Path(str(run_config.get("cache", "")) or default_cache()).expanduser()
    data = Path(str(run_config.get("data", "")) or default_cache() / "example").expanduser()
    config = load_config(config_path(str(run_config.get("config", "demo"))), read_settings(run_config))
    external = split_external(str(run_config.get("external", "")) or "external")
    sites, agreed = _sites(str(run_config.get("sites", FOLDERS)), data, external), _agreed(str(run_config.get("agreed", "{}")))
    return RunPlan(config, data, sites, external, out, cache, resume, agreed, str(run_config.get("weights", "")))


def split_external(text: str) -> tuple[str, ...]:
    """Names of external sites joined by `+`."""
    return tuple(name.strip() for name in text.split("+") if name.strip())


def training_sites(data: Path, external: tuple[str, ...]) -> tuple[str, ...]:
    """All sites under `data` but the external ones, sorted by name.

    Raises:
        ConfigError: no such folder, an external site that is not in it, or nobody left to train.
    """
    names = require_external(data, external)
    sites = tuple(name for name in names if name not in external)
    if not sites:
        raise ConfigError(f"No training site in {data}: its site folders are {', '.join(names)}, the external one included.")
    return sites


def require_external(data: Path, external: tuple[str, ...]) -> list[str]:
    """Names of the site folders under `data`, sorted, the external ones among them.

    Raises:
        ConfigError: no such folder, no external site, or one that is not in it.
    """
    names = sorted(folder.name for folder in find_sites(data))
    known = ", ".join(names) or "none; a site folder holds sub-* folders, participants.tsv or site.toml"
    absent = [name for name in external if name not in names]
    if absent or not external:
        named = repr(absent[0]) if absent else "(none named)"
        raise ConfigError(f"External site {named} is not among the site folders of {data} ({known}).")
    return names


def require_folder(out: Path, *, resume: bool) -> None:
    """Refuse a run folder that cannot be begun, or with `resume` gone on with.

    Raises:
        FederationError: says which.
    """
    if not resume:
        require_fresh(out)
    elif (out / "report.json").exists():
        raise FederationError(
            f"Run folder {out} holds a run that is complete, and nothing to resume. Its page: fedmri-server report {out}"
        )
    elif not (out / RUN_NAME).is_file():
        raise FederationError(f"Run folder {out} holds no run to resume ({RUN_NAME} is not there). Start it without --resume.")


def require_fresh(out: Path) -> None:
    """Refuse a folder in which a run has been: its rounds and the new ones would be one muddle.

    Raises:
        FederationError: it holds a report, a model or rounds, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise FederationError(f"Run folder {out}: expected a folder, or a name that is not taken; it is a file. Name another.")
    marks = (REPORT_NAME, MODEL_NAME, "rounds.jsonl", CHECKPOINTS, "open-round.json")
    found = [name for name in marks if (out / name).exists()]
    if found:
        raise FederationError(
            f"Run folder {out} already holds a run ({found[0]}). Go on with it by --resume, or name another folder."
        )


def _sites(kind: str, data: Path, external: tuple[str, ...]) -> tuple[str, ...]:
    """Training sites of a simulation; none are known beforehand at a real federation."""
    if kind == FOLDERS:
        return training_sites(data, external)
    if kind != NODES:
        raise ConfigError(f'Run configuration key \'sites\': expected "{FOLDERS}" or "{NODES}", got {kind!r}.')
    require_external(data, external)
    return ()


def _agreed(text: str) -> dict[str, int]:
    """Patients that were agreed, by hospital."""
    try:
        agreed = json.loads(text)
    except (ValueError, RecursionError):
        agreed = None
    if not isinstance(agreed, dict) or not all(type(number) is int and number > 0 for number in agreed.values()):
        raise ConfigError(f"Run configuration key 'agreed': expected a JSON table of numbers of patients, got {text!r}.")
    return agreed


def read_settings(run_config: Mapping[str, Any]) -> tuple[str, ...]:
    """The `key=value` settings, which travel as a JSON list because Flower's run configuration is flat.

    Raises:
        ConfigError: they are no such list.
    """
    text = str(run_config.get("set", "[]"))
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, list) or not all(isinstance(item, str) for item in settings):
        raise ConfigError(f"Run configuration key 'set': expected a JSON list of \"key=value\" texts, got {text!r}.")
    return tuple(settings)
