"""A coordinator who keeps to the protocol, but asks twice: with fewer sites the sums' difference would be one site's update.

Requests go the way that they go at a hospital, gate and all; only the bundle answers in this process, not in one of its own.
"""

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.gate import gate
from client.gate.gate import Gate
from client.round import dispatch
from common.config.run import RunConfig, config_from_table
from common.messages.code_version import code_hash
from common.messages.round import SiteReply, Task, pack_arrays, read_status, write_task
from common.messages.secure_aggregation import (
    SECURE,
    AdvertisedKeys,
    KeyShares,
    UnmaskShares,
    from_record,
    read_masked,
    request_hash,
    to_record,
)
from common.models.arrays import flat, get_arrays
from common.models.build import build_model
from common.secure.fixed_point import FixedPoint, Values
from server.strategy.secure_aggregation import SecureRound

CONFIG = config_from_table(
    {
        "data": {"size": 32, "slices": 2},
        "model": {"backbone": "fedmri_vit_mini", "weights": "random", "rank": 2, "head_hidden": 8, "head_bottleneck": 4},
        "objective": {"local_crops": 0},
        "training": {"batch_size": 4, "precision": "fp32", "slices_per_step": 2, "learning_rate": 1e-3},
        "federation": {"rounds": 2},
        "secure": {"enabled": True, "max_weight": 10.0},
    }
)
HEAD = replace(CONFIG, training=replace(CONFIG.training, head_rounds=1))
SITES = "abcd"


class Hospitals:
    """Four hospitals of four patients each, and a server that asks them."""

    def __init__(self, folder: Path, policy: str, updates: dict[str, Values]) -> None:
        self.updates = updates  # what each site trained last, as nobody outside may know it
        self.homes = {name: folder / name for name in SITES}
        for number, home in enumerate(self.homes.values()):
            home.mkdir()
            (home / "site.toml").write_text(f"[policy]\napproval = false\n{policy}\n")
            rows = [f"participant_id\t{CONFIG.task.label}"]
            for patient in range(4):
                voxels = np.random.default_rng(10 * number + patient).integers(1, 900, (20, 20, 4)).astype(np.int16)
                path = home / f"sub-{patient}" / "anat" / f"sub-{patient}_T1w.nii"
                rows.append(f"sub-{patient}\t{CONFIG.task.classes[patient % 3]}")
                path.parent.mkdir(parents=True)
                nib.Nifti1Image(voxels, np.diag([8.0, 8.0, 5.0, 1.0])).to_filename(path)
            (home / "participants.tsv").write_text("\n".join(rows) + "\n")
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as file:
            file.writestr("pyproject.toml", "")
        self.bundle = memory.getvalue()
        self.model = build_model(CONFIG)
        self.start = get_arrays(self.model)

    def sum_of(self, names: str, config: RunConfig, run: str, threshold: int = 3) -> tuple[Values, float] | list[str]:
        """One round 1 over these sites, in a run of its own; what the sites say where they refuse."""
        contexts = {name: Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={}) for name in names}
        task = Task(1, config.to_json(), code_hash(), self.model.backbone_sha256, run=run)
        length = sum(array.size for array in self.start.values())
        fixed = FixedPoint.for_sites(len(names), config.secure.update_range, config.secure.max_weight)
        played = SecureRound(len(names), threshold, length, fixed, request_hash(task, self.start))
        stages: list[tuple[Callable[[int], Any], Callable[[int, RecordDict], None]]] = [
            (played.keys_for, lambda seat, told: played.take_keys(seat, from_record(told[SECURE], AdvertisedKeys))),
            (played.peers_for, lambda seat, told: played.take_shares(seat, from_record(told[SECURE], KeyShares))),
            (played.ciphertexts_for, lambda seat, told: played.take_masked(seat, read_masked(told, 1 + length))),
            (played.unmask_for, lambda seat, told: played.take_unmask(seat, from_record(told[SECURE], UnmaskShares))),
        ]
        for number, (asked, take) in enumerate(stages):
            told = {}
            for seat, name in enumerate(names, start=1):
                content = write_task(task, pack_arrays(self.start) if number == 2 else None)
                content[SECURE] = to_record(asked(seat))
                told[seat], contexts[name] = self.ask(name, content, contexts[name], f"{run}-{number}")
            refused = [read_status(content).error for content in told.values() if read_status(content).error]
            if refused:
                return refused
            for seat, content in told.items():
                take(seat, content)
        return played.result()

    def ask(self, name: str, content: RecordDict, context: Context, number: str) -> tuple[RecordDict, Context]:
        message = Message(content, 7, "train", ttl=1000.0)
        message.metadata.__dict__["_message_id"] = number
        return Gate(self.homes[name] / "site.toml").answer(message, context, self.bundle)


@pytest.fixture
def hospitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Hospitals]:
    monkeypatch.setenv("FEDMRI_CACHE", str(tmp_path / "cache"))
    for name in ("_task_id", "_run_id", "_node_id"):  # what Flower knows of the task that a process is for
        monkeypatch.setattr(TaskIdentity, name, 7)
    updates: dict[str, Values] = {}
    train = vars(dispatch)["train_site"]

    def watched(content: RecordDict, task: Task, context: Any, **more: Any) -> tuple[SiteReply, Any]:
        reply, site = train(content, task, context, **more)
        updates[context.name] = flat(reply.update.change)
        return reply, site

    def here(message: Message, context: Context, folder: Path, **_: Any) -> tuple[RecordDict, Context]:
        toml = folder.parents[2] / "site.toml"
        return dispatch.answer(message.content, {"site-config": str(toml)}, context.state), context

    monkeypatch.setattr(dispatch, "train_site", watched)
    monkeypatch.setattr(gate, "run_bundle", here)
    return lambda policy: Hospitals(tmp_path, policy, updates)


def difference(all_sites: tuple[Values, float], fewer: tuple[Values, float]) -> Values:
    """What two sums tell of the site that is in the first alone."""
    (mean, weight), (other, less) = all_sites, fewer
    return np.asarray((mean * weight - other * less) / (weight - less))


def error(found: Values, truth: Values) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.slow
@pytest.mark.parametrize("secure_only", ["true", "false"])
def test_the_same_training_is_summed_once_in_whatever_run(hospitals, secure_only: str) -> None:
    """At 2a60dec another `evaluation.bootstrap` was another request: the difference was the fourth site's update to 2e-6."""
    sites = hospitals(f"secure_only = {secure_only}")
    assert isinstance(sites.sum_of("abcd", CONFIG, "first"), tuple)
    again = replace(CONFIG, evaluation=replace(CONFIG.evaluation, bootstrap=7), seed=CONFIG.seed + 1)
    again = replace(again, federation=replace(again.federation, round_timeout=7.0), secure=replace(again.secure, max_weight=20.0))
    refused = sites.sum_of("abc", again, "second")
    assert len(refused) == 3
    assert all("taken part in a sum of this training before" in str(text) for text in refused)


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, HEAD], ids=["tuning", "head"])
def test_a_learning_rate_that_differs_by_a_billionth_gives_no_update_away(hospitals, config: RunConfig) -> None:
    name = "head_learning_rate" if config is HEAD else "learning_rate"
    sites = hospitals("secure_only = true")
    first = sites.sum_of("abcd", config, "first")
    truth = sites.updates["d"]

    def off(billionths: int) -> float:
        rate = getattr(config.training, name) * (1 + billionths * 1e-9)
        other = replace(config, training=replace(config.training, **{name: rate}))
        assert other.to_json() != config.to_json()
        return error(difference(first, sites.sum_of("abc", other, f"run {billionths}")), truth)

    assert any(off(billionths) > 0.05 for billionths in (1, 2, 3))  # of four patients each, two draws may be the same


@pytest.mark.slow
def test_without_randomness_of_their_own_the_attack_works(hospitals) -> None:
    """What the test above would show if it did nothing."""
    sites = hospitals("secure_only = false")
    first = sites.sum_of("abcd", CONFIG, "first")
    truth = sites.updates["d"]
    other = replace(CONFIG, training=replace(CONFIG.training, learning_rate=CONFIG.training.learning_rate * (1 + 1e-9)))
    assert error(difference(first, sites.sum_of("abc", other, "second")), truth) < 1e-3


@pytest.mark.slow
def test_a_round_that_failed_before_its_masks_were_off_may_be_tried_anew(hospitals, monkeypatch) -> None:
    sites = hospitals("secure_only = true")
    with monkeypatch.context() as broken:
        broken.setattr(SecureRound, "unmask_for", lambda *_: pytest.fail("lost"))
        with pytest.raises(pytest.fail.Exception):
            sites.sum_of("abcd", CONFIG, "first")
    assert isinstance(sites.sum_of("abcd", CONFIG, "first, tried anew"), tuple)


def test_a_sum_of_two_is_refused_by_those_who_want_three(hospitals) -> None:
    sites = hospitals("")
    for names, threshold in (("ab", 2), ("abc", 2)):
        refused = sites.sum_of(names, CONFIG, "run", threshold)
        assert refused == ["the site takes part in sums of 3 sites or more only"] * len(names)
