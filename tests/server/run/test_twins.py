"""Three hospitals and the coordinator, in this process: what travels, what is found, what becomes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

import client.round.twins as at_site
from client.round.dispatch import answer
from client.round.left_out import KEPT_BACK, without_twins
from client.round.site_context import SiteContext
from common.data.cases import read_site
from common.data.gate.finding import stay_out
from common.errors import FederationError, PolicyError
from common.messages.code_version import code_hash
from common.messages.held_out import THEIRS
from common.messages.round import Task
from common.messages.twins import SEALED, TWINS, write_told
from common.secure.sealed_tokens import group_key, keyed, seal, unseal
from server.run.twins import Exchange
from server.strategy.progress import Progress
from server.strategy.round_state import Address
from tests.server.made_up_sites import plan

PEOPLE = {name: np.unique(np.random.default_rng(i).integers(0, 2**63, 400, dtype=np.uint64)) for i, name in enumerate("PQRSTUVW")}
# Whom each hospital has, by its own ids. P is at a, b and outside; Q at a and c; R outside and at c.
WHO = {
    "a": {"sub-1": "P", "sub-2": "Q", "sub-3": "S"},
    "b": {"sub-1": "T", "sub-2": "P"},
    "c": {"sub-1": "Q", "sub-2": "R", "sub-3": "U"},
}
OUTSIDE = ("R", "V")


@pytest.fixture
def homes(tmp_path, monkeypatch) -> Path:
    for site, patients in WHO.items():
        for patient in patients:
            (tmp_path / site / patient / "anat").mkdir(parents=True)
            (tmp_path / site / patient / "anat" / f"{patient}_T1w.nii.gz").touch()
        set_policy(tmp_path, site, 'twins = "drop"\nshare_twins = true')
    monkeypatch.setattr(at_site, "patient_fingerprint", lambda case, _: PEOPLE[WHO[case.root.name][case.id]])
    return tmp_path


def set_policy(homes: Path, site: str, policy: str) -> None:
    (homes / site / "site.toml").write_text(f"[policy]\n{policy}\n")


@pytest.fixture
def federation(homes, local_grid):
    """run(): the exchange; its grid keeps all that passed through the server."""
    states = {number: RecordDict() for number in (1, 2, 3)}
    passed: list[RecordDict] = []

    def node(number: int, site: str):
        def reply(message):
            content = answer(message.content, {"site-config": str(homes / site / "site.toml")}, states[number])
            passed.extend([message.content, content])
            return content

        return reply

    grid = local_grid({number: node(number, site) for number, site in enumerate(WHO, start=1)})
    config = plan(homes, homes / "out").config
    task = Task(1, config.to_json(), code_hash(), "", "the-run")

    def run(**change: Any) -> dict[str, Any]:
        there = [Address(site, number, "") for number, site in enumerate(WHO, start=1)]
        return Exchange(grid, replace(task, **change), 60.0, Progress()).run(there, [PEOPLE[name] for name in OUTSIDE])

    return run, passed, config


def record(homes: Path, site: str) -> dict[str, Any]:
    (file,) = (homes / site / "twins").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    return {one["patient"]: (one["at"], one["leaves"]) for one in json.loads(file.read_text())["twins"]}


def test_each_person_is_left_with_one_hospital_and_no_external_one_trains(homes, federation):
    run, _, config = federation
    assert run() == {"sites": {"a": 0, "b": 1, "c": 2}, "failures": {}}
    assert record(homes, "a") == {"sub-1": ("another hospital", False), "sub-2": ("another hospital", False)}
    assert record(homes, "b") == {"sub-2": ("another hospital", True)}
    assert record(homes, "c") == {"sub-1": ("another hospital", True), "sub-2": ("the external hospital", True)}
    for site, gone in (("a", set()), ("b", {"sub-2"}), ("c", {"sub-1", "sub-2"})):
        context = SiteContext(site, homes / site / "site.toml", homes / "cache", simulated=False)
        found = without_twins(read_site(context.folder, config), context, "the-run")
        assert stay_out(found.findings) == gone
        assert stay_out(without_twins(read_site(context.folder, config), context, "another run").findings) == set()


def everything(content: RecordDict) -> bytes:
    """All bytes of a message."""
    parts = []
    for item in content.values():
        if isinstance(item, ArrayRecord):
            parts += [array.data for array in item.values() if isinstance(array, Array)]
        elif isinstance(item, ConfigRecord):
            parts.append(repr(dict(item)).encode())
            values = [v for value in item.values() for v in (value if isinstance(value, list) else [value])]
            parts += [value for value in values if isinstance(value, bytes)]
        else:
            parts.append(repr(dict(item)).encode())
    return b"\0".join(parts)


def test_a_server_that_keeps_everything_holds_no_token_key_or_patient(federation, monkeypatch):
    run, passed, _ = federation
    keys: list[bytes] = []
    monkeypatch.setattr(at_site, "group_key", lambda: keys.append(group_key()) or keys[-1])
    run()
    kept = b"".join(everything(content) for content in passed)
    trained = {name for site in WHO.values() for name in site.values()} - set(OUTSIDE)
    for name in trained:
        for tokens in (PEOPLE[name], keyed(PEOPLE[name], keys[0])):
            assert not any(token.tobytes() in kept for token in tokens.astype("<u8")[:4])
    assert PEOPLE["V"].astype("<u8")[0].tobytes() in kept  # so it would be seen: an external patient's, who lies at the server
    assert keys[0] not in kept
    assert b"sub-" not in kept
    sizes = {len(content[SEALED][SEALED].data) for content in passed if SEALED in content and SEALED in content[SEALED]}
    assert len(sizes) == 1  # two patients or three


def test_without_leave_no_number_is_told_and_off_is_the_default(homes, federation):
    run, _, _ = federation
    set_policy(homes, "b", 'twins = "drop"')
    set_policy(homes, "c", "")
    told = run()
    assert told["sites"] == {"a": 0, "b": None}
    assert "does not compare" in told["failures"]["c"]
    assert not (homes / "c" / "twins").exists()
    assert record(homes, "b") == {"sub-2": ("another hospital", True)}


def test_a_site_that_refuses_such_runs_trains_in_none(homes, federation):
    run, _, config = federation
    set_policy(homes, "c", 'twins = "refuse"')
    assert run()["failures"] == {"c": KEPT_BACK}
    context = SiteContext("c", homes / "c" / "site.toml", homes / "cache", simulated=False)
    with pytest.raises(PolicyError, match="2 patients are at another hospital"):
        without_twins(read_site(context.folder, config), context, "the-run")


def test_kept_twins_are_noted_and_train_but_for_external_ones_where_the_run_refuses_them(homes, federation):
    run, _, config = federation
    set_policy(homes, "c", 'twins = "keep"\nshare_twins = true')
    assert run()["failures"] == {"c": THEIRS}
    kept = replace(config, twins=replace(config.twins, with_external="keep"))
    assert run(config=kept.to_json())["sites"]["c"] == 0
    assert record(homes, "c")["sub-2"] == ("the external hospital", False)


def test_a_server_that_swaps_keys_or_plays_a_stage_twice_is_refused(federation, monkeypatch):
    run, _, _ = federation
    real = Exchange._sealed
    monkeypatch.setattr(Exchange, "_sealed", lambda self, m, p, letters: real(self, m, p, letters[::-1]))
    assert run()["failures"].keys() == {"b", "c"}
    monkeypatch.setattr(Exchange, "_sealed", lambda self, m, p, x: real(self, m, p, x) and real(self, m, p, x))
    assert all("no exchange open" in why or "out of turn" in why for why in run()["failures"].values())


def test_sealed_fingerprints_open_for_their_sender_and_key_alone():
    key, members = group_key(), [PEOPLE["P"], PEOPLE["Q"], np.empty(0, np.uint64)]
    sealed = seal(members, key, 2)
    assert all(np.array_equal(a, b) for a, b in zip(unseal(sealed, key, 2), members, strict=True))
    assert unseal(seal([], key, 1), key, 1) == []
    for wrong, sender in ((group_key(), 2), (key, 1)):
        with pytest.raises(FederationError, match="cannot be read"):
            unseal(sealed, wrong, sender)
    with pytest.raises(FederationError):
        unseal(sealed[:5], key, 2)
    assert not np.intersect1d(keyed(PEOPLE["P"], key), keyed(PEOPLE["P"], group_key())).size


def test_a_reply_with_more_than_its_stage_has_does_not_leave(homes, federation, monkeypatch):
    run, _, _ = federation
    real = write_told

    def chatty(*given):
        content = real(*given)
        content[TWINS] = ConfigRecord({**content.config_records[TWINS], "patient": "sub-1"})
        return content

    monkeypatch.setattr(at_site, "write_told", chatty)
    assert set(run()["failures"].values()) == {"the reply holds more than was agreed"}
