"""Before the first round, all folders are compared: the same person in two of them would make a result look better than it is."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.config.run import RunConfig, load_config
from common.data.cases import Case, read_site
from common.data.fingerprint import Fingerprint
from common.data.twins import comparable, find_twins, patient_fingerprint
from common.errors import DataError
from simulation.experiment_plan import Experiment

SHOWN = 10  # pairs spelled out
EXTERNAL, SITES = "external", "sites"
GO_ON = {
    EXTERNAL: "Go on without them in training by `--set twins.with_external=drop`; if these are two persons, by `=keep`.",
    SITES: "Go on with each at one hospital alone by `--set twins.between_sites=drop`; two persons: `=keep`.",
}

Note = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Member:
    """A patient of one folder."""

    site: str
    case: Case
    tokens: Fingerprint

    @property
    def name(self) -> str:
        """SITE/PATIENT."""
        return f"{self.site}/{self.case.id}"


@dataclass(frozen=True)
class Pair:
    """One person in two folders. Where one of them is the external hospital's, it is the second."""

    kind: str  # EXTERNAL or SITES
    first: Member
    second: Member
    overlap: float

    def __str__(self) -> str:
        return f"{self.first.name} is {self.second.name}"


def without_twins(plan: Experiment, note: Note, progress: Progress) -> tuple[Experiment, dict[str, Any]]:
    """The experiment as its `twins` settings want it, and `twins` of report.json.

    Raises:
        DataError: the same person trains and is measured, or trains twice, and the settings refuse that.
    """
    members = read_members(plan, progress)
    pairs = find_pairs(members, plan.external)
    refuse(pairs, plan.config)
    dropped = left_out(pairs, plan.config)
    told = {
        "patients": len(members),
        "incomparable": sum(not comparable(member.tokens) for member in members),
        "with_external": plan.config.twins.with_external,
        "between_sites": plan.config.twins.between_sites,
        "pairs": [_line(pair, dropped) for pair in pairs],
    }
    for sentence in sentences(told):
        note(sentence)
    return with_left_out(plan, dropped), told


def sentences(told: dict[str, Any]) -> list[str]:
    """What was found, for the console; nothing where nothing was."""
    lines = [
        f"{one['first']} is {one['second']}, the same person: "
        + (f"{one['left_out']} is left out." if one["left_out"] else "both stay in, as the settings say.")
        for one in told["pairs"][:SHOWN]
    ]
    more = len(told["pairs"]) - SHOWN
    lines += [f"And {more} more pairs; report.json has them all (twins)."] if more > 0 else []
    if told["incomparable"]:
        lines.append(f"Of {told['incomparable']} of {told['patients']} patients the images are too small to find them elsewhere.")
    return lines


def read_members(plan: Experiment, progress: Progress) -> list[Member]:
    """Everybody of all folders, training sites first; a folder that cannot be read has nobody (`read_all` says why)."""
    found = [(name, case) for name in (*plan.sites, *plan.external) for case in _cases(plan, name)]
    members = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # unpacking, products and interpolation leave Python's lock to others
        tokens = pool.map(lambda one: patient_fingerprint(_wanted(one[1], plan.config), plan.cache), found)
        for done, ((name, case), own) in enumerate(zip(found, tokens, strict=True), start=1):
            members.append(Member(name, case, own))
            progress("comparing patients", done, len(found))
    return members


def find_pairs(members: Sequence[Member], external: Sequence[str]) -> list[Pair]:
    """All pairs of patients in two folders who are one person, but for two external ones."""
    tokens = [member.tokens for member in members]
    pairs = []
    for twin in find_twins(tokens, tokens):
        first, second = members[twin.first], members[twin.second]
        if twin.first < twin.second and first.site != second.site and first.site not in external:
            pairs.append(Pair(EXTERNAL if second.site in external else SITES, first, second, twin.overlap))
    return pairs


def refuse(pairs: Sequence[Pair], config: RunConfig) -> None:
    """Refuse what the settings refuse.

    Raises:
        DataError: names the patients, and says how to go on.
    """
    settings = {EXTERNAL: config.twins.with_external, SITES: config.twins.between_sites}
    what = {EXTERNAL: "trains, and is a patient of the external hospital", SITES: "trains at two hospitals"}
    for kind, setting in settings.items():
        these = [pair for pair in pairs if pair.kind == kind]
        if these and setting == "refuse":
            more = f", and {len(these) - SHOWN} more" if len(these) > SHOWN else ""
            names = "; ".join(str(pair) for pair in these[:SHOWN])
            raise DataError(f"The same person {what[kind]}: {names}{more}. {GO_ON[kind]}")


def left_out(pairs: Sequence[Pair], config: RunConfig) -> tuple[str, ...]:
    """Who takes no part, as SITE/PATIENT, sorted: a training patient who is external, and one of two who train.

    Of two who train the one with a label stays, then the one with more modalities, then the one of the first site.
    """
    drop = {EXTERNAL: config.twins.with_external == "drop", SITES: config.twins.between_sites == "drop"}
    dropped = {pair.first.name for pair in pairs if pair.kind == EXTERNAL and drop[EXTERNAL]}
    for pair in pairs:
        if pair.kind == SITES and drop[SITES] and not {pair.first.name, pair.second.name} & dropped:
            dropped.add(min((pair.first, pair.second), key=_worth).name)
    return tuple(sorted(dropped))


def with_left_out(plan: Experiment, dropped: tuple[str, ...]) -> Experiment:
    """The experiment without these patients, besides those whom its settings left out before."""
    everybody = sorted({*plan.config.twins.left_out, *dropped})
    if not dropped:
        return plan
    settings = (*plan.settings, f"twins.left_out={json.dumps(everybody)}")
    return replace(plan, settings=settings, config=load_config(plan.source, settings))


def _wanted(case: Case, config: RunConfig) -> Case:
    """With the files of the run's modalities alone."""
    return replace(case, files={m: file for m, file in case.files.items() if m in config.data.modalities})


def _worth(member: Member) -> tuple[bool, int, list[int]]:
    """The larger stays."""
    return member.case.label >= 0, len(member.case.files), [-ord(letter) for letter in member.name]


def _cases(plan: Experiment, name: str) -> Sequence[Case]:
    try:
        site = read_site(Path(plan.data) / name, plan.config, simulated=True)
    except DataError:
        return ()
    return [case for case in site.cases if f"{name}/{case.id}" not in plan.config.twins.left_out]


def _line(pair: Pair, dropped: tuple[str, ...]) -> dict[str, Any]:
    names = (pair.first.name, pair.second.name)
    gone = [name for name in names if name in dropped]
    return {
        "kind": pair.kind,
        "first": names[0],
        "second": names[1],
        "overlap": round(pair.overlap, 3),
        "left_out": gone[0] if gone else None,
    }
