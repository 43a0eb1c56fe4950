"""The verbs of `fedmri-site` for patients who are gone: withdraw, and what the slice cache still holds."""

import argparse
import glob
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.deployment.home import SiteHome, open_home
from common.cli import add_debug, output
from common.errors import ConfigError, FedMRIError
from common.files import write_atomic
from common.text import toml_value

if TYPE_CHECKING:
    from client.round.trained_on import Used
    from common.data.forgetting import Entry

    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

WITHDRAWN = "withdrawn"  # event of the audit log


@dataclass(frozen=True)
class Withdrawn:
    """What a withdrawal did, and what it cannot undo: `runs` have trained on the patient."""

    patient: str
    excluded: bool  # false: site.toml left them out already
    entries: int  # of the cache, that were deleted
    runs: dict[str, "Used"]


def add_withdraw(verbs: "Verbs") -> None:
    """Add the verbs: end a patient's use; see and prune what is kept."""
    _add_withdraw(verbs)
    _add_cache(verbs)


def _add_withdraw(verbs: "Verbs") -> None:
    text = (
        "End the use of a patient's data: they are excluded in site.toml, what the cache holds of them is deleted, and the runs "
        "that have trained on them are listed. The privacy ledger keeps their mark: what was spent stays spent."
    )
    verb = verbs.add_parser(
        "withdraw", help="end the use of a patient's data, and list the runs that used them", description=text
    )
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("patient", metavar="PATIENT", help="as their folder is called, such as sub-017")
    _add_json(verb, _withdraw)


def _add_cache(verbs: "Verbs") -> None:
    text = "What the slice cache of this user holds of this site's patients. Training deletes what is of patients who are gone."
    verb = verbs.add_parser("cache", help="what the slice cache holds of this site's patients", description=text)
    verb.add_argument("site", type=Path, metavar="FOLDER|site.toml", help="the site's folder, or its site.toml")
    verb.add_argument("--prune", action="store_true", help="delete what is of patients who are gone, changed or excluded")
    _add_json(verb, _cache)


def _add_json(verb: argparse.ArgumentParser, handler: Any) -> None:
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=handler)


def withdraw(home: SiteHome, patient: str, cache: Path) -> Withdrawn:
    """End the use of a patient's data.

    Raises:
        ConfigError: nobody of that name is or was here, or site.toml cannot be changed by this command.
        FederationError, AuditLogError: a record or the audit log cannot be read or written.
    """
    from client.gate import audit_log
    from client.round.trained_on import data_key, keyed_name, runs_with

    runs = runs_with(home.folder, patient)
    there = {folder.name for folder in _root(home).glob(home.config.patients) if folder.is_dir()}
    if patient not in there and not runs:
        raise ConfigError(f"No patient {patient!r}: no such folder in {_root(home)}, and no run has trained on them.")
    text = home.toml.read_text(encoding="utf-8")
    new = excluding(text, patient)
    if new != text:
        write_atomic(home.toml, new.encode())
    entries = _forget(open_home(home.toml), cache)
    mark = keyed_name(data_key(home.key.parent), patient)
    audit_log.record(home.state / audit_log.LOG_NAME, WITHDRAWN, patient=mark, runs=len(runs))
    return Withdrawn(patient, new != text, entries, runs)


def excluding(text: str, patient: str) -> str:
    """The text of site.toml with one more patient excluded; unchanged where they are.

    Raises:
        ConfigError: the file is written in a way that this does not understand.
    """
    pattern, listed = glob.escape(patient), list(tomllib.loads(text).get("exclude", []))
    if pattern in listed:
        return text
    wanted = [*listed, pattern]
    line = f"exclude = {toml_value(wanted)}"
    head, section, rest = re.match(r"(?s)(.*?)(^\[.*|\Z)(.*)", text, re.MULTILINE).groups()  # type: ignore[union-attr]
    if listed:
        head = re.sub(r"(?m)^exclude\s*=.*$", line.replace("\\", r"\\"), head, count=1)
    else:
        head = f"{head.rstrip()}\n{line}\n\n" if head.strip() else f"{line}\n\n"
    new = head + section + rest
    try:
        done = tomllib.loads(new).get("exclude") == wanted
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise ConfigError(f"site.toml: its exclude spans several lines. Write by hand, then try again: {line}")
    return new


def _root(home: SiteHome) -> Path:
    return (home.folder / Path(home.config.data).expanduser()).resolve()


def _forget(home: SiteHome, cache: Path) -> int:
    """Delete what the cache holds of patients who are gone; of a folder that cannot be read, all of it."""
    from common.data.forgetting import forget, forget_gone, of_folder

    root = _root(home)
    try:
        return forget_gone(cache, root, _cases(home))
    except FedMRIError:
        mine = of_folder(cache, root)
        forget(cache, mine, [])
        return len(mine)


def _cases(home: SiteHome) -> Sequence[Any]:
    """All patients that are there and not excluded."""
    from common.config.run import RunConfig
    from common.data.cases import read_site

    return read_site(home.toml, RunConfig()).cases


def _withdraw(arguments: argparse.Namespace) -> int:
    from common.data.cache import default_cache

    done = withdraw(open_home(arguments.site), arguments.patient, default_cache())
    if arguments.json:
        runs = {run: {"first": used.first, "last": used.last} for run, used in done.runs.items()}
        print(json.dumps({**vars(done), "runs": runs}, indent=2))
        return 0
    before = "" if done.excluded else ", as before"
    _say(f"{done.patient} is excluded in site.toml{before}: from the next request on they train no more.")
    _say(f"{done.entries} entries of the slice cache were deleted. The privacy ledger keeps their mark.")
    for run, used in sorted(done.runs.items()):
        _say(f"Run {run} has trained on them, from round {used.first} to {used.last}: its models hold what they learned.")
    if not done.runs:
        _say("No run is on record that trained on them (records begin with this version).")
    return 0


def _cache(arguments: argparse.Namespace) -> int:
    from common.data.cache import default_cache
    from common.data.forgetting import gone, of_folder

    home, cache = open_home(arguments.site), default_cache()
    found = of_folder(cache, _root(home))
    lost = gone(found, _cases(home))
    pruned = _forget(home, cache) if arguments.prune else 0
    if arguments.json:
        table = [_row(entry, entry in lost) for entry in found]
        print(json.dumps({"cache": str(cache), "entries": table, "pruned": pruned}, indent=2))
        return 0
    for entry in found:
        state = "of patients who are gone, changed or excluded" if entry in lost else "current"
        _say(f"{entry.path.name[:12]}  {entry.patients} patients  {entry.size / 1e6:.1f} MB  {state}")
    end = f"{pruned} deleted." if arguments.prune else f"{len(lost)} hold patients who are gone: --prune." if lost else ""
    _say(f"{len(found)} entries of this site in {cache}. {end}".strip())
    return 0


def _row(entry: "Entry", lost: bool) -> dict[str, Any]:
    return {"key": entry.path.name, "patients": entry.patients, "bytes": entry.size, "gone": lost}


def _say(text: str) -> None:
    output().print(text, markup=False, highlight=False, soft_wrap=True)
