"""The round loop with nodes that fail in every way a site can fail."""

import re
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from common.cli import CONFIGS
from common.config.run import RunConfig, config_from_table
from common.config.sections import FederationConfig
from common.errors import BUDGET_SPENT, FederationError
from common.messages.round import SiteReply, Task, pack_arrays, read_task, unpack_arrays, write_reply
from common.messages.update import Update
from common.models.arrays import Arrays
from server.events.rounds import RoundRecord
from server.strategy.progress import Progress
from server.strategy.round_loop import FedMRIAvg
from server.strategy.round_state import ResumePoint
from server.strategy.site_selection import Presence
from tests.server.conftest import LocalGrid

LIKE = {"w": np.zeros(3, np.float32)}
TASK = Task(1, "{}", "code", "backbone", data="/data")
SITES = ("a", "b", "c")


def honest(message: Message) -> RecordDict:
    """Adds 1, 2 or 3 to the global arrays, by the site's letter."""
    task = read_task(message.content)
    change = {"w": np.full(3, "abc".index(task.site) + 1, np.float32)}
    return write_reply(SiteReply(task.site, task.round, update=Update(change), patients=10, labelled=10, counts_shared=True))


def bad(value):
    return lambda message: write_reply(
        SiteReply("b", read_task(message.content).round, update=Update({"w": np.full(3, value, np.float32)}))
    )


def play(grid, plan: FederationConfig, sites=SITES, rounds=1, **options):
    records = []
    strategy = FedMRIAvg(plan, TASK, LIKE, sites)
    result = strategy.start(
        grid, pack_arrays(LIKE), rounds, 0.1, on_round=lambda record, arrays: records.append((record, arrays)), **options
    )
    return unpack_arrays(result.arrays, LIKE)["w"], records


def nodes(b, a=honest, c=honest):
    return {11: a, 12: b, 13: c}


def test_honest_sites_give_their_mean_round_after_round(local_grid):
    arrays, records = play(local_grid(nodes(honest)), FederationConfig(), rounds=3)
    np.testing.assert_allclose(arrays, 6.0)
    assert [record.round for record, _ in records] == [1, 2, 3]
    assert [float(arrays["w"][0]) for _, arrays in records] == [2.0, 4.0, 6.0]
    assert records[0][0].sites == SITES
    assert records[0][0].failures == {}
    assert records[0][0].bytes_down == records[0][0].bytes_up == 3 * len(pack_arrays(LIKE)["w"].data)


def test_a_later_first_round_goes_on_from_there(local_grid):
    grid = local_grid(nodes(honest))
    _, records = play(grid, FederationConfig(), rounds=5, before=ResumePoint("", 3))
    assert [record.round for record, _ in records] == [4, 5]
    assert read_task(grid.sent[0].content).round == 4


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (bad(np.nan), "not finite"),
        (bad(1e6), "max_update_norm"),
        (lambda m: write_reply(SiteReply("b", 1, update=Update({"w": np.zeros(4, np.float32)}))), "expected float32"),
        (lambda m: write_reply(SiteReply("b", 1, update=Update({"v": np.zeros(3, np.float32)}))), "names differ"),
        (lambda m: write_reply(SiteReply("b", 9, update=Update({"w": np.zeros(3, np.float32)}))), "to round 9, not 1"),
        (lambda m: write_reply(SiteReply("b", 1, error="its data were refused")), "its data were refused"),
        (lambda m: RecordDict(), "no ConfigRecord"),
        (lambda m: None, "no reply within 7 s"),
        (lambda m: Message(Error(ErrorCode.CLIENT_APP_CRASHED, "patient Smith"), reply_to=m), "client app crashed"),
    ],
    ids=["nan", "norm", "shape", "name", "round", "error", "empty", "straggler", "crash"],
)
def test_a_bad_site_is_named_and_the_others_go_on(local_grid, node, reason):
    plan = FederationConfig(max_update_norm=100.0, round_timeout=7.0)
    arrays, [(record, _)] = play(local_grid(nodes(node)), plan)
    np.testing.assert_allclose(arrays, 2.0)  # of 1 and 3
    assert record.sites == ("a", "c")
    assert list(record.failures) == ["b"]
    assert reason in record.failures["b"]
    assert "Smith" not in record.failures["b"]


def test_a_change_out_of_all_proportion_to_the_others_is_refused(local_grid):
    arrays, [(record, _)] = play(local_grid(nodes(bad(100.0))), FederationConfig())
    np.testing.assert_allclose(arrays, 2.0)  # of 1 and 3
    assert list(record.failures) == ["b"]
    assert "50 times the other sites' (3.464)" in record.failures["b"]


def test_an_error_reply_of_the_superlink_is_laid_to_the_site_that_was_asked(local_grid):
    def gone(message):
        reply = Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        return reply

    _, [(record, _)] = play(local_grid(nodes(gone)), FederationConfig())
    assert record.failures["b"].startswith("the site's process gave no reply (Flower: node unavailable)")
    assert "revoked" in record.failures["b"]


def test_a_gate_that_may_say_nothing_is_told_by_what_it_means(local_grid):
    def silent(message):
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "/data/Smith"), reply_to=message)

    _, [(record, _)] = play(local_grid(nodes(silent)), FederationConfig())
    assert "client app raised exception). A hospital that cannot write its audit log" in record.failures["b"]
    assert "Smith" not in record.failures["b"]


def test_a_round_with_too_few_sites_asks_the_missing_ones_again(local_grid):
    tries = []

    def late(message):
        tries.append(message)
        return honest(message) if len(tries) == 3 else None

    grid = local_grid(nodes(late))
    arrays, [(record, _)] = play(grid, FederationConfig(min_sites=3, round_retries=2))
    np.testing.assert_allclose(arrays, 2.0)
    assert record.attempts == 3
    assert record.failures == {}
    missed = ("b", "no reply within 3600 s", "no-reply")
    assert record.retried == ((1, *missed), (2, *missed))  # a success hides nothing
    asked = [read_task(message.content).site for message in grid.sent]
    assert asked == ["a", "b", "c", "b", "b"]  # a and c had answered


def test_too_few_sites_in_spite_of_retries_end_the_run_with_reasons(local_grid):
    grid = local_grid(nodes(bad(np.nan), c=lambda m: None))
    with pytest.raises(FederationError, match=r"Round 1 ended with 1 valid updates of the 2 .* after 3 attempts") as caught:
        play(grid, FederationConfig(min_sites=2, round_retries=2))
    assert "b: Array w holds values that are not finite" in str(caught.value)
    assert "c: no reply within" in str(caught.value)
    assert len(grid.sent) == 3 + 2 + 2


def test_fewer_folders_than_min_sites_are_refused_at_once(local_grid):
    with pytest.raises(FederationError, match=r"min_sites is 4.*a, b, c.*--set federation.min_sites=3"):
        play(local_grid(nodes(honest)), FederationConfig(min_sites=4))


def test_waiting_for_nodes_has_an_end(local_grid):
    with pytest.raises(FederationError, match=r"0 of the 1 sites .* connected after 1 s"):
        play(local_grid({}), FederationConfig(wait_for_sites=1.0))


def test_two_nodes_serve_three_folders(local_grid):
    grid = local_grid({11: honest, 12: honest})
    arrays, _ = play(grid, FederationConfig(min_sites=3))
    np.testing.assert_allclose(arrays, 2.0)
    assert [(m.metadata.dst_node_id, read_task(m.content).site) for m in grid.sent] == [(11, "a"), (12, "b"), (11, "c")]


def test_without_folders_every_node_is_a_site(local_grid):
    def hospital(message):
        task = read_task(message.content)
        assert task.site == ""
        return write_reply(SiteReply("own name", task.round, update=Update({"w": np.ones(3, np.float32)})))

    _, [(record, _)] = play(local_grid({11: hospital, 12: hospital}), FederationConfig(), sites=())
    assert record.sites == ("node-11", "node-12")


def test_the_external_measure_is_recorded_and_changes_nothing(local_grid):
    seen = []

    def look(number, arrays):
        seen.append((number, float(arrays["w"].numpy()[0])))
        return MetricRecord({"mcc": 0.5}) if number == 2 else None

    arrays, records = play(local_grid(nodes(honest)), FederationConfig(), rounds=2, evaluate_fn=look)
    assert seen == [(1, 2.0), (2, 4.0)]
    assert [record.external for record, _ in records] == [{}, {"mcc": 0.5}]
    np.testing.assert_allclose(arrays, 4.0)


def spent_after(last: int):
    """Trains until `last`, then says that its budget is spent."""

    def node(message: Message) -> RecordDict:
        task = read_task(message.content)
        return honest(message) if task.round <= last else write_reply(SiteReply(task.site, task.round, error=BUDGET_SPENT))

    return node


def test_a_site_whose_budget_is_spent_drops_out_and_the_others_go_on(local_grid):
    _, records = play(local_grid(nodes(spent_after(1))), FederationConfig(min_sites=2), rounds=3)
    assert [record.sites for record, _ in records] == [SITES, ("a", "c"), ("a", "c")]
    assert records[1][0].failures == {"b": BUDGET_SPENT}


def test_a_site_whose_answer_was_lost_counts_as_charged_though_its_budget_refuses_later(local_grid):
    tries = []

    def lost_then_spent(message):
        tries.append(message)
        task = read_task(message.content)
        return None if len(tries) == 1 else write_reply(SiteReply(task.site, task.round, error=BUDGET_SPENT))

    def second_time(message):
        return honest(message) if tries[1:] else None

    grid = local_grid(nodes(lost_then_spent, c=second_time))
    _, [(record, _)] = play(grid, FederationConfig(min_sites=2, round_retries=1))
    assert record.failures == {"b": BUDGET_SPENT}
    assert record.trained == {"a": 1, "b": 1, "c": 2}


def test_training_ends_by_itself_when_too_few_budgets_are_left(local_grid):
    grid = local_grid(nodes(spent_after(2), a=spent_after(2)))
    strategy, rounds = FedMRIAvg(FederationConfig(min_sites=2), TASK, LIKE, SITES), []
    result = strategy.start(grid, pack_arrays(LIKE), 5, 0.1, on_round=lambda record, _: rounds.append(record.round))
    assert rounds == [1, 2]
    np.testing.assert_allclose(unpack_arrays(result.arrays, LIKE)["w"], 4.0)
    asked = [read_task(message.content).round for message in grid.sent]
    assert asked.count(3) == 3  # once each: asking again would charge the third site for nothing
    assert strategy.progress.rounds.unfinished.sites == ("c",)  # it spent on the round that came to nothing


def test_no_budget_for_even_one_round_is_an_error(local_grid):
    with pytest.raises(FederationError, match="round 1: it is spent at a, b"):
        play(local_grid(nodes(spent_after(0), a=spent_after(0))), FederationConfig(min_sites=2))


def test_what_the_ledgers_say_is_kept(local_grid):
    def private(message: Message) -> RecordDict:
        task = read_task(message.content)
        return write_reply(SiteReply("b", task.round, update=Update({"w": np.ones(3, np.float32)}), epsilon=0.5 * task.round))

    _, records = play(local_grid(nodes(private)), FederationConfig(), rounds=2)
    assert [record.epsilon for record, _ in records] == [{"b": 0.5}, {"b": 1.0}]


def failing_until(last: int):
    """Gives no reply up to a round, then an honest one."""
    return lambda message: None if read_task(message.content).round <= last else honest(message)


def test_a_site_that_keeps_failing_is_left_alone_for_some_rounds_then_asked_and_taken_back(local_grid):
    grid = local_grid(nodes(failing_until(3)))
    _, records = play(grid, FederationConfig(pause_after=2, pause_rounds=2), rounds=7)
    asked = [number for number in range(1, 8) for m in grid.sent if named(m) == (number, "b")]
    assert asked == [1, 2, 5, 6, 7]
    assert [record.paused for record, _ in records] == [(), (), ("b",), ("b",), (), (), ()]
    assert [sorted(record.failures) for record, _ in records] == [["b"], ["b"], [], [], [], [], []]
    assert records[4][0].sites == SITES


def named(message: Message) -> tuple[int, str]:
    task = read_task(message.content)
    return task.round, task.site


def test_a_paused_site_is_asked_where_the_others_are_too_few(local_grid):
    grid = local_grid(nodes(failing_until(0), c=failing_until(2)))
    _, records = play(grid, FederationConfig(min_sites=2, pause_after=1, pause_rounds=9), rounds=3)
    assert [record.paused for record, _ in records] == [(), ("c",), ("c",)]
    grid = local_grid(nodes(failing_until(1), c=failing_until(1)))
    _, records = play(grid, FederationConfig(min_sites=1, pause_after=1, pause_rounds=9), rounds=2)
    assert records[1][0].paused == ("b", "c")
    grid = local_grid(nodes(honest, a=lambda m: None if named(m)[0] == 2 else honest(m), c=failing_until(1)))
    _, records = play(grid, FederationConfig(min_sites=2, pause_after=1, pause_rounds=9), rounds=2)
    assert records[1][0].sites == ("b", "c")  # asked again in the second attempt, when a was missing
    assert records[1][0].paused == ()


def test_a_resumed_run_pauses_the_same_sites(local_grid):
    plan = FederationConfig(pause_after=2, pause_rounds=3)
    line = {"sites": ["a", "c"], "failures": [{"site": "b", "reason": "gone"}]}
    _, records = play(local_grid(nodes(honest)), plan, rounds=3, before=ResumePoint("", 2, lines=(line, line)))
    assert records[0][0].paused == ("b",)


def hospital(message: Message) -> RecordDict:
    task = read_task(message.content)
    return write_reply(SiteReply("own name", task.round, update=Update({"w": np.ones(3, np.float32)})))


def test_a_late_joiner_is_asked_from_the_next_round_on(local_grid):
    grid = local_grid({})

    def first(message):
        grid.nodes[13] = hospital
        return hospital(message)

    grid.nodes |= {11: first, 12: hospital}
    _, records = play(grid, FederationConfig(), sites=(), rounds=2)
    assert [record.sites for record, _ in records] == [("node-11", "node-12"), ("node-11", "node-12", "node-13")]


def test_two_nodes_with_one_name_are_told_apart(local_grid):
    class Named(LocalGrid):
        def get_nodes(self):
            return [NodeInfo(node_id=11, name="north"), NodeInfo(node_id=12, name="north"), NodeInfo(node_id=13, name="coast")]

    _, [(record, _)] = play(Named({11: hospital, 12: hospital, 13: hospital}), FederationConfig(), sites=())
    assert record.sites == ("coast", "north-11", "north-12")


def test_the_external_hospital_is_not_let_train(local_grid):
    class Named(LocalGrid):
        def get_nodes(self):
            return [NodeInfo(node_id=11, name="north"), NodeInfo(node_id=12, name="coast")]

    strategy = FedMRIAvg(FederationConfig(), TASK, LIKE)
    strategy.presence.held_out = ("north",)
    grid = Named({11: hospital, 12: hospital})
    with pytest.raises(FederationError, match="north is the external hospital of this run, and is connected as one that trains"):
        strategy.start(grid, pack_arrays(LIKE), 1, 0.1)
    assert grid.sent == []


def test_a_late_reply_to_an_earlier_round_is_not_taken(local_grid):
    kept = []

    def late(message):
        kept.append(honest(message))
        return kept[-2] if len(kept) > 1 else None  # always the answer to the round before

    _, records = play(local_grid(nodes(late)), FederationConfig(), rounds=3)
    assert [record.sites for record, _ in records] == [("a", "c")] * 3
    assert records[1][0].failures == {"b": "The reply is to round 1, not 2."}


def test_what_happens_to_each_site_is_told(local_grid, tmp_path):
    progress = Progress(tmp_path, 1)
    strategy = FedMRIAvg(FederationConfig(), TASK, LIKE, SITES, progress=progress)
    strategy.start(local_grid(nodes(bad(np.nan))), pack_arrays(LIKE), 1, 0.1)
    states = {name: (site.state, site.failures) for name, site in progress.sites.items()}
    assert states == {"a": ("answered", 0), "b": ("failed", 1), "c": ("answered", 0)}
    assert "not finite" in progress.sites["b"].reason
    assert progress.sites["a"].bytes_up == progress.sites["a"].bytes_down > 0
    assert (progress.state, progress.round) == ("evaluating", 1)


def test_a_first_round_in_which_every_site_tells_that_it_has_no_label_is_the_last(local_grid):
    """Only where all tell: a site that keeps its numbers back may have labels, and one label is enough."""

    def site(labelled: int, *, shared: bool = True):
        settings: dict[str, Any] = {"patients": 5, "labelled": labelled, "counts_shared": shared}
        return lambda m: write_reply(
            SiteReply("b", read_task(m.content).round, update=Update({"w": np.full(3, 1.0, np.float32)}), **settings)
        )

    def nobody() -> dict:
        return dict.fromkeys((11, 12, 13), site(0))

    with pytest.raises(FederationError, match=r"No patient of any training site has a label .*--unlabelled"):
        play(local_grid(nobody()), FederationConfig())
    for one in (site(1), site(0, shared=False)):
        assert len(play(local_grid(nobody() | {12: one}), FederationConfig())[1]) == 1
    strategy = FedMRIAvg(FederationConfig(), TASK, LIKE, SITES, RunConfig(federation=FederationConfig(unlabelled=True)))
    strategy.start(local_grid(nobody()), pack_arrays(LIKE), 1, 0.1)


def refuses(asked: list[int], *, for_good: bool = True):
    """The hospital's policy says no; notes the rounds for which it was asked."""

    def node(message: Message) -> RecordDict:
        asked.append(read_task(message.content).round)
        return write_reply(SiteReply("", asked[-1], error="its policy does not allow it", for_good=for_good))

    return node


@pytest.mark.parametrize("sites", [SITES, ()], ids=["folders", "hospitals"])
def test_a_refusal_for_good_is_asked_once_a_run_and_told_in_every_round(local_grid, sites):
    asked: list[int] = []
    plan = FederationConfig(pause_after=0)
    _, records = play(local_grid(nodes(refuses(asked), a=hospital, c=hospital)), plan, sites=sites, rounds=3)
    refuser = "b" if sites else "node-12"
    assert asked == [1]
    assert [record.paused for record, _ in records] == [(), (refuser,), (refuser,)]
    assert records[0][0].failures == {refuser: "its policy does not allow it"}
    assert all(record.attempts == 1 for record, _ in records)


def test_who_fails_otherwise_is_asked_again(local_grid):
    asked: list[int] = []
    play(local_grid(nodes(refuses(asked, for_good=False))), FederationConfig(), rounds=2)
    assert asked == [1, 2]


@pytest.mark.parametrize("sites", [SITES, ()], ids=["folders", "hospitals"])
def test_where_those_who_refuse_leave_too_few_nobody_is_asked_again(local_grid, sites):
    asked: list[int] = []
    grid = local_grid(nodes(refuses(asked), a=hospital, c=hospital))
    with pytest.raises(FederationError, match="its policy does not allow it"):
        play(grid, FederationConfig(min_sites=3, round_retries=5, wait_for_sites=1.0), sites=sites)
    assert asked == [1]
    assert len(grid.sent) == 3


class WaitedError(Exception):
    pass


@pytest.fixture
def no_waiting(monkeypatch):
    def sleep(seconds: float) -> None:
        raise WaitedError

    monkeypatch.setattr("server.strategy.site_selection.time.sleep", sleep)


def test_where_every_hospital_has_refused_none_is_waited_for(local_grid, no_waiting):
    grid = local_grid({11: refuses([]), 12: refuses([])})
    with pytest.raises(FederationError, match="every hospital that was there has refused") as caught:
        play(grid, FederationConfig(), sites=())
    for name in ("node-11", "node-12"):
        assert f"{name} is not asked: its policy does not allow it." in str(caught.value)


def test_a_hospital_that_has_not_refused_is_waited_for_though_it_is_away(local_grid, no_waiting):
    there = {11: refuses([]), 12: refuses([])}
    there[13] = lambda message: there.pop(13) and None  # it has gone without an answer
    grid = local_grid(there)
    with pytest.raises(WaitedError):
        play(grid, FederationConfig(), sites=())


def test_a_hospital_that_is_to_be_heard_again_is_not_waited_for_as_if_it_were_away(local_grid, no_waiting):
    presence = Presence(FederationConfig(min_sites=2), (), Progress())
    presence.closed = {"node-11": "not compared yet", "node-12": "its policy does not allow it"}
    grid = local_grid({11: honest, 12: honest, 13: honest})
    with pytest.raises(WaitedError):
        presence.wait(grid, 1)
    presence.anew = {"node-11"}
    presence.wait(grid, 1)


def test_a_resumed_run_asks_once_more(local_grid):
    asked: list[int] = []
    line = {"sites": ["a", "c"], "failures": [{"site": "b", "reason": "its policy does not allow it"}]}
    play(local_grid(nodes(refuses(asked))), FederationConfig(), rounds=3, before=ResumePoint("", 1, lines=(line,)))
    assert asked == [2]


PRIVATE = tomllib.loads((CONFIGS / "private.toml").read_text(encoding="utf-8")) | {"training": {"head_rounds": 3}}


@pytest.mark.parametrize("agreed", [{}, {"node-14": 1000}], ids=["nothing agreed", "agreed"])
def test_a_hospital_that_claims_thousands_and_turns_its_change_round_does_not_turn_the_model(local_grid, caplog, agreed):
    """The whole way of three rounds at hospitals: four of them, each of its own opinion, the last one against all others."""
    opinions = {"a": 0.9, "b": 1.0, "c": 1.2, "liar": -1.0}

    def node(name: str):
        def answers(message: Message) -> RecordDict:
            change, patients = np.full(3, opinions[name], np.float32), 1000 if name == "liar" else 30
            told = SiteReply(name, read_task(message.content).round, update=Update({"w": change}), patients=patients, labelled=20)
            return write_reply(replace(told, counts_shared=True))

        return answers

    grid = local_grid({number: node(name) for number, name in enumerate(opinions, start=11)})
    strategy, records = FedMRIAvg(FederationConfig(), TASK, LIKE, (), agreed=agreed), list[RoundRecord]()
    result = strategy.start(grid, pack_arrays(LIKE), 3, 0.1, on_round=lambda record, _: records.append(record))
    arrays = unpack_arrays(result.arrays, LIKE)["w"]
    assert arrays == pytest.approx(3.0, rel=0.15)  # the mean of the honest is 3.1
    assert all(record.influence["node-14"]["drawn"] < 0.01 for record in records)
    times = re.findall(r"node-14: its change is ([\d.]+) times as far off as others", caplog.text)
    assert [float(one) for one in times] == pytest.approx([20.0] * 3, rel=0.2)  # 2 from the middle, others usually 0.1
    assert ("node-14 counts as 30 of the 1000 patients" in caplog.text) == (not agreed)


class Unsparing(FedMRIAvg):
    """Asks everybody."""

    def spare(self, there) -> None:
        pass


def without_labels(asked: list[int]):
    """Changes nothing, as an unlabelled site does where the head alone is fitted; in other rounds it trains."""

    def node(message: Message) -> RecordDict:
        asked.append(read_task(message.content).round)
        change = {"w": np.full(3, 4.0 if asked[-1] > 3 else 0.0, np.float32)}
        told = SiteReply("b", asked[-1], update=Update(change), patients=10, labelled=0, counts_shared=True)
        return write_reply(told)

    return node


@pytest.mark.parametrize(
    ("sections", "rounds"),
    [
        ({"training": {"head_rounds": 3}}, [1, 4, 5]),
        (PRIVATE, [1, 4, 5]),
        ({"training": {"head_rounds": 0}}, [1, 2, 3, 4, 5]),
        ({"training": {"head_rounds": 3}, "federation": {"strategy": {"name": "scaffold"}}}, [1, 2, 3, 4, 5]),
    ],
    ids=["head rounds", "private head rounds", "tuning", "scaffold"],
)
def test_an_unlabelled_site_is_not_asked_where_it_changes_nothing_and_the_mean_is_the_same(local_grid, sections, rounds):
    config = config_from_table(sections)
    found: list[bytes] = []
    for spared in (True, False):
        asked: list[int] = []
        strategy = (FedMRIAvg if spared else Unsparing)(config.federation, TASK, LIKE, SITES, config)
        records: list[RoundRecord] = []

        def note(record: RoundRecord, _: Arrays, kept: list[RoundRecord] = records) -> None:
            kept.append(record)

        result = strategy.start(local_grid(nodes(without_labels(asked))), pack_arrays(LIKE), 5, 0.1, on_round=note)
        found.append(unpack_arrays(result.arrays, LIKE)["w"].tobytes())
        assert asked == (rounds if spared else [1, 2, 3, 4, 5])
        assert [record.round for record in records if record.idle] == [n for n in range(1, 6) if n not in asked]
        assert all(record.sites == SITES for record in records)
    assert found[0] == found[1]


def labelled_until(last: int, then: str | None):
    """Has labels and trains until `last`; then says `then`, or nothing."""

    def node(message: Message) -> RecordDict | None:
        task = read_task(message.content)
        if task.round <= last:
            return honest(message)
        return write_reply(SiteReply("b", task.round, error=then)) if then else None

    return node


def test_a_run_ends_in_good_order_when_the_budget_of_the_only_site_with_labels_is_spent(local_grid):
    """Those that are not asked stand in with nothing: no round can be made of them alone."""
    config, rounds = config_from_table(PRIVATE), list[int]()
    asked: list[list[int]] = [[], []]
    grid = local_grid(nodes(labelled_until(2, BUDGET_SPENT), a=without_labels(asked[0]), c=without_labels(asked[1])))
    strategy = FedMRIAvg(config.federation, TASK, LIKE, SITES, config)
    strategy.start(grid, pack_arrays(LIKE), 5, 0.1, on_round=lambda record, _: rounds.append(record.round))
    assert rounds == [1, 2]
    assert asked == [[1], [1]]
    assert strategy.progress.rounds.unfinished.failures == {"b": BUDGET_SPENT}
    assert not strategy.progress.rounds.unfinished.trained


@pytest.mark.parametrize("last", [0, 2])
def test_who_has_the_labels_is_asked_again_and_named_where_it_does_not_answer(local_grid, last):
    config = config_from_table(PRIVATE)
    grid = local_grid(nodes(labelled_until(last, None), a=without_labels([]), c=without_labels([])))
    with pytest.raises(FederationError, match=r"2 valid updates, none of a site with labels, .* after 3 attempts\. b: no reply"):
        FedMRIAvg(config.federation, TASK, LIKE, SITES, config).start(grid, pack_arrays(LIKE), 5, 0.1)
    assert [read_task(message.content).round for message in grid.sent].count(last + 1) == (5 if last == 0 else 3)
