"""A patient is the same person under every name, export and compression; the ledger is held against a brute-force truth."""

import gzip
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.privacy.budget import Budget, open_budget
from client.privacy.ledger import Ledger, append, read_ledger
from client.privacy.marks import voxel_marks
from common.config.site import SiteConfig, SitePrivacy
from common.data.cases import Case, Site
from common.errors import PrivacyError
from common.privacy.charge import Charge

ROUND = Charge(1.5, 0.1, 20)  # 8 of them: epsilon 4.0 at delta 1e-3
SHAPE = (7, 6, 5)


def voxels_of(volume: int) -> np.ndarray:
    """One scan: integers, as scanners give them."""
    return np.random.default_rng(volume).integers(0, 40, SHAPE).astype(np.int16)


def write_nifti(path: Path, voxels: np.ndarray, *, way: int = 0, packed: bool = False) -> Path:
    """One export of the same voxels: `way` chooses the header, the type, the scale and the order of axes."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    image = nib.Nifti1Image(voxels, affine)
    if way == 1:
        image = nib.Nifti1Image(voxels.astype(np.float32), np.diag([0.9, 0.9, 5.0, 1.0]))
        image.header["descrip"] = b"another export"
    elif way == 2:
        image = image.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    elif way == 3:
        image = nib.Nifti1Image((voxels * 3.5 + 7).astype(np.float64), affine)  # in the scanner's other unit
    content = image.to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@dataclass
class Folder:
    """A site's folder as it changes: each case is a name and some volumes' exports."""

    root: Path
    cases: dict[str, dict[int, int]] = field(default_factory=dict)  # name -> {volume: way of export, packed above 3}

    def site(self) -> Site:
        """What `read_site` would find."""
        modalities = ("t1", "t1ce", "t2", "flair", "dwi", "adc", "swi", "pd")
        return Site(
            "du",
            self.root,
            tuple(
                Case(name, dict(zip(modalities, map(self._file, volumes.items()), strict=False)), None, -1, None, None, self.root)
                for name, volumes in sorted(self.cases.items())
            ),
            SiteConfig(),
        )

    def _file(self, export: tuple[int, int]) -> Path:
        volume, way = export
        path = self.root / f"{volume}-{way}.nii"
        return path if path.exists() else write_nifti(path, voxels_of(volume), way=way % 4, packed=way > 3)

    def budget(self, limit: float = 0.0, same_patient: str = "charge") -> Budget:
        privacy = SitePrivacy(epsilon=limit, same_patient=same_patient)
        return open_budget(self.site(), privacy, self.root / "ledger.jsonl", self.root / "cache")


def test_renamed_and_exported_anew_by_turns_the_budget_still_ends(tmp_path: Path) -> None:
    """At 2a60dec 14 rounds were taken on a budget for 8."""
    states = [{"a": {1: 0}}, {"b": {1: 0}}, {"b": {1: 1}}, {"c": {1: 1}}, {"c": {1: 6}}, {"a": {1: 6}}]
    folder = Folder(tmp_path)
    folder.cases = states[0]
    limit = folder.budget().spent(*[ROUND] * 8)
    for number in range(8):
        folder.cases = states[number % len(states)]
        folder.budget(limit).charge(ROUND, "run")
    for state in states:
        folder.cases = state
        with pytest.raises(PrivacyError, match="beyond the hospital's"):
            folder.budget(limit).charge(ROUND, "run")


@pytest.mark.parametrize("way", range(8))
def test_renamed_and_exported_anew_at_once_is_the_same_patient(tmp_path: Path, way: int) -> None:
    """At 2a60dec the ledger said 0 of the patient who was renamed and compressed again."""
    folder = Folder(tmp_path, {"a": {1: 0}})
    spent = folder.budget().charge(ROUND, "run")
    folder.cases = {"z": {1: way}}
    assert folder.budget().spent() == spent > 0
    folder.cases = {"z": {2: way}}
    assert folder.budget().spent() == 0


def test_links_over_names_and_scans_that_are_gone_hold(tmp_path: Path) -> None:
    """Scan 1 as a; a has scan 2 now; scan 2 as b: all one person, whose ends share neither name nor scan."""
    states = [{"a": {1: 0}}, {"a": {2: 0}}, {"b": {2: 0}}]
    for number, order in enumerate(permutations(states)):
        folder = Folder(tmp_path / str(number))
        for state in order:
            folder.cases = state
            noted(folder)
        folder.cases = {"b": {2: 4}}
        assert entries_of(folder) == [[1, 1, 1]]


def noted(folder: Folder) -> None:
    """A charge, without the accountant."""
    budget = folder.budget()
    book = read_ledger(budget.path)
    append(budget.path, book, ROUND, tuple(book.mark(*facts) for facts in budget.facts), "run")


def entries_of(folder: Folder) -> list[list[int]]:
    """For each present person, how many times they stand in each charge."""
    budget = folder.budget()
    book = read_ledger(budget.path)
    cohort = tuple(book.mark(*facts) for facts in budget.facts)
    return [list(counted(book, marks)) for marks in dict.fromkeys(cohort)]


def counted(book: Ledger, marks: frozenset[str]) -> Iterable[int]:
    people = book.people((marks,))
    person = people.person(marks)
    return (sum(people.person(other) == person for other in entry.cohort) for entry in book.entries)


CHANGES = ("rename", "export", "pack", "split", "merge", "remove", "add")


def changed(folder: Folder, rng: random.Random, fresh: list[int]) -> None:
    """One thing that happens to a folder of patients."""
    cases, what = folder.cases, rng.choice(CHANGES)
    if what == "add" or not cases:
        back = [volume for volume in range(1, fresh[0]) if all(volume not in volumes for volumes in cases.values())]
        chosen = rng.choice(back) if back and rng.random() < 0.5 else fresh[0]
        fresh[0] = max(fresh[0], chosen + 1)
        cases[f"new-{rng.randrange(10**6)}"] = {chosen: rng.randrange(8)}
        return
    name = rng.choice(sorted(cases))
    if what == "rename":
        cases[f"name-{rng.randrange(8)}"] = cases.pop(name)  # a name that somebody else may have had, or has
    elif what == "export":
        cases[name] = {volume: rng.randrange(4) for volume in cases[name]}
    elif what == "pack":
        cases[name] = {volume: way % 4 + 4 * rng.randrange(2) for volume, way in cases[name].items()}
    elif what == "remove":
        del cases[name]
    elif what == "merge" and len(cases) > 1:
        other = rng.choice(sorted(cases.keys() - {name}))
        if len(cases[name]) + len(cases[other]) <= 8:
            cases[name] = {**cases[name], **cases.pop(other)}
    elif what == "split" and len(cases[name]) > 1:
        volume = rng.choice(sorted(cases[name]))
        cases[f"part-{rng.randrange(10**6)}"] = {volume: cases[name].pop(volume)}


def true_counts(rounds: list[list[set[int]]], scans: set[int]) -> list[int]:
    """In how many cases of each round the person stood whose scans these are, and all that were ever in one case with them."""
    while True:
        more = scans.union(*(case for cases in rounds for case in cases if case & scans))
        if more == scans:
            return [sum(bool(case & scans) for case in cases) for cases in rounds]
        scans = more


@pytest.mark.parametrize("seed", range(100))
def test_a_random_history_is_never_below_the_truth(tmp_path: Path, seed: int) -> None:
    """The truth: whoever stood in one case together is one person. Names that change hands may make the ledger say more."""
    rng, fresh = random.Random(seed), [1]
    folder, rounds = Folder(tmp_path), list[list[set[int]]]()
    for _ in range(8):
        for _ in range(rng.choice((1, 1, 2, 3))):
            changed(folder, rng, fresh)
        if not folder.cases:
            continue
        noted(folder)
        rounds.append([set(volumes) for volumes in folder.cases.values()])
        budget = folder.budget()
        book, present = read_ledger(budget.path), [set(volumes) for _, volumes in sorted(folder.cases.items())]
        for facts, scans in zip(budget.facts, present, strict=True):
            said, truth = list(counted(book, book.mark(*facts))), true_counts(rounds, scans)
            assert all(ledger >= true for ledger, true in zip(said, truth, strict=True)), (said, truth)


def test_two_cases_of_one_person_are_refused_or_charged_as_a_group(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": {1: 0}, "b": {1: 6}, "c": {2: 0}})
    with pytest.raises(PrivacyError, match="a and b: one person") as refusal:
        folder.budget(1e5, "refuse").charge(ROUND, "run")
    assert refusal.value.public == PrivacyError.public_default
    assert not (tmp_path / "ledger.jsonl").exists()
    spent = folder.budget(1e5).charge(ROUND, "run")
    folder.cases = {"c": {2: 0}}
    once = folder.budget().spent()
    assert spent > 1.5 * once
    folder.cases = {"z": {1: 2}}
    assert folder.budget().spent() == spent


def test_two_who_turn_out_to_be_one_person_are_charged_as_a_group_from_the_beginning(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": {1: 0}, "b": {2: 0}})
    apart = folder.budget().charge(ROUND, "run")
    folder.cases = {"a": {1: 0, 2: 0}}  # the archive has found the two to be one
    assert folder.budget().spent() > 1.5 * apart


def test_a_volume_without_contrast_tells_of_nobody() -> None:
    assert voxel_marks(np.zeros(SHAPE, np.float32)) == ()
    assert voxel_marks(np.full(SHAPE, np.nan, np.float32)) == ()
    assert len(voxel_marks(voxels_of(1).astype(np.float32))) == 2
    assert len(voxel_marks(np.random.default_rng(0).random((4, 4, 4)).astype(np.float32))) == 1  # no value twice


def test_the_cache_may_be_deleted_and_damaged(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"a": {1: 0}})
    facts = folder.budget().facts
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text("[")
    assert folder.budget().facts == facts
