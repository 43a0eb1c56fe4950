"""A run that is cut off and gone on with: the same model, nothing under-claimed, and refused where it would be another run."""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from flwr.app import RecordDict

from common.config.run import config_from_table
from common.errors import FederationError
from common.models.arrays import load_arrays
from common.models.multimodal import MultiModalViT
from server.run import federate as running
from server.run import resume as resuming
from server.run.ending import leave_error
from server.run.federate import federate
from server.run.plan import require_folder
from server.run.resume import difference, read_open, write_open
from tests.server.events.replayed import require_replayed
from tests.server.made_up_sites import plan, site_nodes

SITES = ("a", "b")


class Killed(BaseException):
    """The process ends here."""


def cut_off(node, at: int):
    """A node that is asked `at` times, and takes the server with it at the next."""
    asked = []

    def respond(message):
        asked.append(message)
        if len(asked) > at:
            raise Killed
        return node(message)

    return respond


def nodes(at: int | None = None, many: int = 2):
    found = site_nodes(many)
    return found if at is None else found | {1: cut_off(found[1], at)}


def rounds(out):
    return [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]


def model(out) -> bytes:
    return (out / "model.safetensors").read_bytes()


KINDS = {
    "plain": ({}, 1),
    "secure": ({"secure": {"enabled": True}}, 4),
    "momentum": ({"federation": {"strategy": {"name": "fedavgm", "momentum": 0.9}}}, 1),
    "two moments": ({"federation": {"strategy": "fedadam"}}, 1),
    "control variates": ({"federation": {"strategy": "scaffold"}}, 1),
    "secure momentum": ({"secure": {"enabled": True}, "federation": {"strategy": "fedavgm"}}, 4),
    "residual": ({"federation": {"low_rank": {"name": "residual", "kept_rank": 4}}}, 1),
    "svd and momentum": ({"federation": {"low_rank": "svd", "strategy": "fedavgm"}}, 1),
    "head rounds and alternating factors": ({"model": {"adapter": {"factor": "alternate"}}, "training": {"head_rounds": 1}}, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize(("sections", "messages"), KINDS.values(), ids=KINDS)
def test_the_model_after_a_resume_is_that_of_an_uninterrupted_run(folder, tmp_path, local_grid, sections, messages):
    chosen = plan(folder, tmp_path / "whole", SITES, sections=sections, rounds=3)
    federate(local_grid(nodes()), chosen)
    chosen = replace(chosen, out=tmp_path / "cut")
    for at in (0, 1):  # killed before the first round is over, and again in the one after it
        with pytest.raises(Killed), leave_error(chosen.out):
            federate(local_grid(nodes(messages * at)), replace(chosen, resume=at > 0))
    federate(local_grid(nodes()), replace(chosen, resume=True))
    assert model(tmp_path / "cut") == model(tmp_path / "whole")
    assert [line["round"] for line in rounds(tmp_path / "cut")] == [1, 2, 3]
    require_replayed(tmp_path / "cut")


@pytest.mark.slow
def test_a_killed_process_is_gone_on_with_under_the_same_name(folder, tmp_path, local_grid):
    chosen = plan(folder, tmp_path / "cut", SITES, rounds=2)
    child = os.fork()
    if not child:
        found = site_nodes()
        found[1] = killing(found[1])
        federate(local_grid(found), chosen)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(rounds(chosen.out)) == 1
    began = json.loads((chosen.out / "run.json").read_text())["run"]
    grid = local_grid(nodes())
    federate(grid, replace(chosen, resume=True))
    assert {message.content["config"]["run"] for message in grid.sent} == {began}
    federate(local_grid(nodes()), replace(chosen, out=tmp_path / "whole"))
    assert model(chosen.out) == model(tmp_path / "whole")


def killing(node):
    asked = []

    def respond(message):
        asked.append(message)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return node(message)

    return respond


@pytest.mark.slow
@pytest.mark.parametrize("place", ["save_checkpoint", "close_round", "finish"])
def test_wherever_it_is_cut_off_each_round_has_one_line_and_one_result(folder, tmp_path, local_grid, monkeypatch, place):
    chosen = plan(folder, tmp_path / "cut", SITES)

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(running, place, die)
        with pytest.raises(Killed):
            federate(local_grid(nodes()), chosen)
    federate(local_grid(nodes()), replace(chosen, resume=True))
    federate(local_grid(nodes()), replace(chosen, out=tmp_path / "whole"))
    assert model(chosen.out) == model(tmp_path / "whole")
    assert [line["round"] for line in rounds(chosen.out)] == [1, 2]
    require_replayed(chosen.out)


def cut_after(folder, out, local_grid, after: int, **settings):
    chosen = plan(folder, out, SITES, **settings)
    with pytest.raises(Killed):
        federate(local_grid(nodes(after)), chosen)
    return replace(chosen, resume=True)


@pytest.mark.slow
def test_torn_and_superfluous_lines_and_a_damaged_checkpoint_are_played_again(folder, tmp_path, local_grid):
    federate(local_grid(nodes()), plan(folder, tmp_path / "whole", SITES, rounds=4))
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 3, rounds=4)
    with (chosen.out / "rounds.jsonl").open("a") as file:
        file.write('{"round": 4, "sec')
    last = chosen.out / "checkpoints" / "round-0003.safetensors"
    last.write_bytes(last.read_bytes()[:-9])
    federate(local_grid(nodes()), chosen)
    lines = rounds(chosen.out)
    assert model(chosen.out) == model(tmp_path / "whole")
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["trained"] == {"a": 3, "b": 3}  # the lost third round, the fourth that was on, and now
    assert lines[2]["redone"] == 1
    require_replayed(chosen.out)
    assert "redone" not in lines[3]


@pytest.mark.slow
def test_the_momentum_is_in_the_checkpoint_and_a_round_without_it_is_played_again(folder, tmp_path, local_grid):
    sections = {"federation": {"strategy": "fedavgm"}}
    federate(local_grid(nodes()), plan(folder, tmp_path / "whole", SITES, sections=sections, rounds=3))
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 2, sections=sections, rounds=3)
    arrays, state = (chosen.out / "checkpoints" / f"round-0002{end}" for end in (".safetensors", ".state.safetensors"))
    velocity, weights = load_arrays(state)[0], load_arrays(arrays)[0]
    assert {name: array.shape for name, array in velocity.items()} == {name: array.shape for name, array in weights.items()}
    state.unlink()
    federate(local_grid(nodes()), chosen)
    assert model(chosen.out) == model(tmp_path / "whole")
    assert [line.get("redone") for line in rounds(chosen.out)] == [None, 1, None]


def test_fedavg_has_no_state_and_goes_on_from_checkpoints_without_one(folder, tmp_path, local_grid):
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 1)
    assert [path.name for path in (chosen.out / "checkpoints").glob("*.safetensors")] == ["round-0001.safetensors"]
    federate(local_grid(nodes()), chosen)
    assert [line.get("redone") for line in rounds(chosen.out)] == [None, None]


PRIVATE = {
    "privacy": {"enabled": True, "noise_multiplier": 2.0, "sample_rate": 0.5, "steps": 3},
    "objective": {"local_crops": 0, "dino": 0.0, "ibot": 0.0, "koleo": 0.0},
}


@pytest.mark.slow
def test_what_a_site_spent_on_a_round_that_was_cut_off_is_claimed(folder, tmp_path, local_grid):
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 1, sections=PRIVATE)
    # Node 1 is site a, whose answer to round 2 the kill took; b was asked as well, and may have trained.
    assert read_open(chosen.out) == (2, {"a": 1, "b": 1}, 0)
    federate(local_grid(nodes()), chosen)
    claims = json.loads((chosen.out / "report.json").read_text())["privacy"]
    assert {site: claim["steps"] for site, claim in claims.items()} == {"a": 9, "b": 9}
    for claim in claims.values():
        assert claim["epsilon"] >= claim["ledger_epsilon"]


@pytest.mark.slow
def test_noise_for_whole_hospitals_that_went_out_is_claimed(folder, tmp_path, local_grid):
    sections = {"site_level": {"enabled": True, "noise": 0.01}}
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 2, sections=sections, rounds=3)
    (chosen.out / "checkpoints" / "round-0002.safetensors").unlink()
    federate(local_grid(nodes()), chosen)
    told = json.loads((chosen.out / "report.json").read_text())["aggregation"]
    assert told["site_level"]["rounds"] == 4


def test_what_is_another_run_is_refused_by_the_first_thing_that_differs(folder, tmp_path, local_grid, monkeypatch):
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 1)
    kept = list(chosen.out.rglob("*.json*"))  # the record of what happened among them: this did not happen to the run
    assert {"status.json", "events.jsonl"} <= {path.name for path in kept}
    before = [path.read_bytes() for path in kept]
    other = replace(chosen.config, training=replace(chosen.config.training, batch_size=5))
    with pytest.raises(FederationError, match=r"training\.batch_size was 4 and is 5 now"):
        federate(local_grid(nodes()), replace(chosen, config=other))
    with pytest.raises(FederationError, match=r"sites was .*b.* and is"):
        federate(local_grid(nodes()), replace(chosen, sites=("a", "b", "broken")))
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "code_hash", lambda: "f" * 64)
        with pytest.raises(FederationError, match="begun by other code"):
            federate(local_grid(nodes()), chosen)
    assert before == [path.read_bytes() for path in kept]


def test_nothing_to_resume_and_a_complete_run_are_refused(folder, tmp_path, local_grid):
    with pytest.raises(FederationError, match=r"holds no run to resume"):
        require_folder(tmp_path, resume=True)
    federate(local_grid(nodes()), plan(folder, tmp_path / "run", SITES, rounds=1))
    with pytest.raises(FederationError, match=r"complete"):
        require_folder(tmp_path / "run", resume=True)
    with pytest.raises(FederationError, match=r"already holds a run .*--resume"):
        require_folder(tmp_path / "run", resume=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.json", b"{", r"run\.json.*damaged"),
        ("run.json", b'{"run": 3}', r"run\.json.*damaged"),
        ("open-round.json", b'{"round": 2, "trained": {"a": -1}, "redone": 0}', r"open-round\.json.*damaged"),
        ("rounds.jsonl", b'{"round": 1}\n{"round": 2}\n', r"rounds\.jsonl, line 1"),
        ("rounds.jsonl", b"", "its checkpoint is of round 2, rounds.jsonl has 0"),
    ],
)
def test_damage_that_would_hide_what_was_spent_is_refused(folder, tmp_path, local_grid, name, content, says):
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 2, rounds=3)
    (chosen.out / name).write_bytes(content)
    with pytest.raises(FederationError, match=says):
        federate(local_grid(nodes()), chosen)


def test_without_any_whole_checkpoint_there_is_nothing_to_go_on_from(folder, tmp_path, local_grid):
    chosen = cut_after(folder, tmp_path / "cut", local_grid, 1)
    (chosen.out / "checkpoints" / "round-0001.safetensors").write_bytes(b"x")
    with pytest.raises(FederationError, match="no checkpoint of them is whole"):
        federate(local_grid(nodes()), chosen)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_the_run_in_good_order_and_it_goes_on_when_there_is_room(folder, tmp_path, local_grid):
    federate(local_grid(nodes()), plan(folder, tmp_path / "whole", SITES))
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets root mount nothing")
    try:
        chosen = plan(folder, disk / "run", SITES)
        found = site_nodes()
        federate_until_full = local_grid(found | {1: filling(found[1], disk)})
        with (
            pytest.raises(
                FederationError, match=r"round-0002\.safetensors could not be written \(No space left on device\).*--resume"
            ),
            leave_error(chosen.out),
        ):
            federate(federate_until_full, chosen)
        assert json.loads((chosen.out / "checkpoints" / "latest.json").read_text())["round"] == 1
        (disk / "filler").unlink()
        federate(local_grid(nodes()), replace(chosen, resume=True))
        assert model(chosen.out) == model(tmp_path / "whole")
        assert [line["round"] for line in rounds(chosen.out)] == [1, 2]
    finally:
        subprocess.run(["umount", disk], check=True)


def filling(node, disk):
    """A node in whose second round the coordinator's disk runs full."""
    asked = []

    def respond(message):
        asked.append(message)
        if len(asked) == 2:
            with (disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        return node(message)

    return respond


def test_the_first_difference_is_named_by_its_dotted_key():
    one, other = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [2]}
    assert difference(one, other) == "a.c"
    assert difference(one, one) == ""
    assert difference({"a": 1}, {}) == "a"
    assert difference(["x"], ["y"], "sites") == "sites"


def test_sums_of_trainings_are_by_site(tmp_path):
    assert resuming.add_up([{"a": 1}, {"a": 2, "b": 1}, {}]) == {"a": 3, "b": 1}
    write_open(tmp_path, 3, {"a": 1}, 2)
    assert read_open(tmp_path) == (3, {"a": 1}, 2)


def test_at_a_real_federation_no_path_of_the_servers_travels(folder, tmp_path, local_grid):
    nodes_only = plan(folder, tmp_path / "run", sites=())
    config = config_from_table(json.loads(nodes_only.config.to_json()))
    file, fake = tmp_path / "server-only" / "weights.safetensors", cast(MultiModalViT, FakeModel)
    task = running.site_task(
        replace(nodes_only, config=replace(config, model=replace(config.model, weights=str(file)))), fake, "token"
    )
    assert str(tmp_path) not in json.dumps(vars(task))
    assert (task.data, task.site, task.cache) == ("", "", "")
    assert json.loads(task.config)["model"]["weights"] == "weights.safetensors"
    kept = running.site_task(replace(nodes_only, config=replace(config, model=replace(config.model, weights="hub"))), fake, "t")
    assert json.loads(kept.config)["model"]["weights"] == "hub"


class FakeModel:
    backbone_sha256 = "0" * 64


def test_a_site_that_took_part_is_in_the_report_of_a_real_federation(folder, tmp_path, local_grid, monkeypatch):
    from dataclasses import replace as changed

    from client.round.dispatch import answer
    from common.messages.round import read_task, write_task

    def hospital(name):
        def respond(message):
            task = read_task(message.content)
            assert (task.site, task.data, task.cache) == ("", "", "")
            here = write_task(changed(task, site=name, data=str(folder)), None)
            return answer(RecordDict({**message.content, **here}), {}, RecordDict())

        return respond

    federate(local_grid({7: hospital("a"), 8: hospital("b")}), plan(folder, tmp_path / "run", sites=()))
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["provenance"]["data"]["sites"] == ["node-7", "node-8"]
    bounds = {"max_update_ratio": 30.0, "max_site_share": 0.5, "clip_ratio": 2.0, "distance_ratio": 1.0}  # hospitals' own
    assert report["provenance"]["bounds"] == bounds
    assert np.isfinite(report["rounds"][0]["seconds"])


@pytest.mark.slow
def test_a_folder_that_is_moved_in_a_round_ends_the_run_and_resumes_once_it_is_back(folder, tmp_path, local_grid):
    federate(local_grid(nodes()), plan(folder, tmp_path / "whole", SITES))
    chosen, aside, found, asked = plan(folder, tmp_path / "run", SITES), tmp_path / "aside", site_nodes(), []

    def moving(message):
        asked.append(message)
        if len(asked) == 2:
            chosen.out.rename(aside)
        return found[1](message)

    with pytest.raises(FederationError, match=r"run was moved or removed while the run was on\. Put it back.*--resume"):
        federate(local_grid(found | {1: moving}), chosen)
    assert not list(chosen.out.glob("checkpoints/*"))  # nothing of the run lies in the other place
    shutil.rmtree(chosen.out, ignore_errors=True)
    aside.rename(chosen.out)
    federate(local_grid(nodes()), replace(chosen, resume=True))
    assert model(chosen.out) == model(tmp_path / "whole")
