"""The pool's grid with workers that are threads: who gets what, who comes back, who dies."""

import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from server.strategy import messaging
from server.strategy.messaging import error_name, exchange
from simulation.pool.grid import PoolGrid, Started
from simulation.pool.worker import read_memory, read_message, write_memory, write_message

Work = Callable[[str, int, int], None]  # site, slot, how often the site has been asked before


class Pool:
    """Starts workers, and notes what each was asked; `work` may raise to let one die."""

    def __init__(self, work: Work = lambda *_: None) -> None:
        self.work, self.asked, self.started, self.ends = work, list[tuple[str, int]](), list[int](), list[Connection]()
        self.ended: dict[int, threading.Event] = {}

    def start(self, slot: int) -> Started:
        near, far = Pipe()
        self.started.append(slot)
        self.ends.append(near)
        self.ended[slot] = threading.Event()
        threading.Thread(target=self._serve, args=(far, slot, self.ended[slot]), daemon=True).start()
        return Started(near, -9 if self.started.count(slot) > 1 else 0)

    def _serve(self, connection: Connection, slot: int, ended: threading.Event) -> None:
        try:
            while True:
                message, state = read_message(connection.recv_bytes()), read_memory(connection.recv_bytes())
                times = int(state["m"]["times"]) if "m" in state else 0  # type: ignore[index, arg-type]
                site = str(message.content["config"]["site"])  # type: ignore[index]
                self.asked.append((site, slot))
                self.work(site, slot, times)
                content = RecordDict({"config": ConfigRecord({"site": site, "times": times})})
                connection.send_bytes(write_message(Message(content, reply_to=message)))
                connection.send_bytes(write_memory(RecordDict({"m": ConfigRecord({"times": times + 1})})))
        except (EOFError, OSError, InterruptedError):
            connection.close()
            ended.set()


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def pooled() -> Iterator[Callable[..., tuple[PoolGrid, Pool]]]:
    pools: list[Pool] = []

    def make(workers: int = 1, work: Work = lambda *_: None) -> tuple[PoolGrid, Pool]:
        pools.append(Pool(work))
        return PoolGrid(9, workers, pools[-1].start), pools[-1]

    yield make
    for pool in pools:
        for end in pool.ends:
            end.close()


def to(*sites: str) -> list[Message]:
    """Requests; site `s3` is node 3."""
    return [Message(RecordDict({"config": ConfigRecord({"site": site})}), int(site[1:]), MessageType.TRAIN) for site in sites]


def ask(grid: PoolGrid, *sites: str, timeout: float = 30.0) -> dict[str, Message]:
    requests = to(*sites)
    came = exchange(grid, requests, timeout, lambda *_: None).came
    return {
        site: came[request.metadata.message_id]
        for site, request in zip(sites, requests, strict=True)
        if request.metadata.message_id in came
    }


def test_every_site_answers_and_finds_its_own_memory_again(pooled: Callable[..., tuple[PoolGrid, Pool]]) -> None:
    grid, _ = pooled(2)
    for times in range(3):
        came = ask(grid, "s1", "s2", "s3", "s4", "s5")
        assert {site: reply.content["config"]["site"] for site, reply in came.items()} == {s: s for s in came}
        assert len(came) == 5
        assert {reply.content["config"]["times"] for reply in came.values()} == {times}
    assert ask(grid, "s6")["s6"].content["config"]["times"] == 0


def test_a_site_comes_back_to_its_worker_unless_another_is_idle(pooled: Callable[..., tuple[PoolGrid, Pool]]) -> None:
    meet = threading.Barrier(2)  # both workers have one
    grid, pool = pooled(2, lambda site, *_: meet.wait(20) and None if site in ("s1", "s2") else None)
    for _ in range(3):
        ask(grid, "s1", "s2")
    first, second = dict(pool.asked[:2]), pool.asked[2:]
    assert sorted(first.values()) == [0, 1]
    assert all(first[site] == slot for site, slot in second)
    pool.asked.clear()
    gate = threading.Event()

    def work(site: str, *_: int) -> None:
        if site == "s3":
            gate.wait(20)
        else:
            gate.set()

    pool.work = work
    ask(grid, "s3", "s4")  # and while one slot waits in s3, the other does all else, its own or not
    assert len({slot for _, slot in pool.asked}) == 2


def test_a_worker_that_dies_costs_its_site_one_reply_and_is_replaced(
    pooled: Callable[..., tuple[PoolGrid, Pool]], caplog: pytest.LogCaptureFixture
) -> None:
    def work(site: str, _: int, times: int) -> None:
        if site == "s2" and not times and pool.started == [0]:
            raise InterruptedError

    grid, pool = pooled(1, work)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulation.pool.grid.log", lambda _, text, *args: said.append(text % args))
        came = ask(grid, "s1", "s2", "s3")
    assert [came[site].has_error() for site in ("s1", "s2", "s3")] == [False, True, False]
    assert error_name(came["s2"]) == "client app crashed"
    assert said == ["The worker that computed for s2 was ended by signal 9; a new one takes its place."]
    again = ask(grid, "s1", "s2")  # the memory of a site is not lost with a worker
    assert [again[site].content["config"]["times"] for site in ("s1", "s2")] == [1, 0]
    assert pool.started == [0, 0]


def test_a_worker_that_dies_while_idle_costs_nobody_anything(pooled: Callable[..., tuple[PoolGrid, Pool]]) -> None:
    grid, pool = pooled(1)
    ask(grid, "s1")
    pool.work = lambda *_: (_ for _ in ()).throw(InterruptedError)
    died = pool.ended[0]
    pool.ends[0].send_bytes(write_message(_numbered(to("s9")[0])))
    pool.ends[0].send_bytes(b"")
    assert died.wait(20)
    pool.work = lambda *_: None
    assert not ask(grid, "s1")["s1"].has_error()
    assert pool.started == [0, 0]


def _numbered(message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = "by hand"
    return message


def test_a_late_reply_is_nobodys_and_what_was_not_begun_is_dropped(pooled: Callable[..., tuple[PoolGrid, Pool]]) -> None:
    gate = threading.Event()
    grid, pool = pooled(1, lambda site, *_: gate.wait(20) and None if site == "s1" else None)
    assert ask(grid, "s1", "s2", timeout=0.05) == {}
    gate.set()
    assert list(ask(grid, "s3")) == ["s3"]
    assert [site for site, _ in pool.asked] == ["s1", "s3"]
    assert grid.wait(0.0) == []


def test_a_reply_is_known_of_at_once(pooled: Callable[..., tuple[PoolGrid, Pool]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging, "FIRST_POLL", 3600.0)  # whoever sleeps over it does so for long
    grid, _ = pooled(1)
    assert len(ask(grid, "s1", "s2", timeout=7200.0)) == 2
