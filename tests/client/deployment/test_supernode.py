"""A SuperNode's process ends with Flower's loop, whatever threads that leaves."""

import subprocess
import sys
import time

import pytest

from client.deployment.supernode import Pauses, look_when_due

LEAVES_A_THREAD = """
import threading, time
from common.deployment.process_end import end_with

def loop():
    threading.Thread(target=time.sleep, args=(600,)).start()  # as Flower's, which serves the site's programs: no daemon
    print("over", flush=True)
    {end}

end_with(loop)
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("return 1", 1, ""),
        ("return 0", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('a sentence')", 1, ""),
        ("raise ConnectionError('the network')", 1, "ConnectionError: the network"),
    ],
)
def test_the_process_is_over_with_the_loop(end: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_A_THREAD.format(end=end)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (code, "over\n")
    assert said in done.stderr


def test_the_coordinator_is_asked_the_more_often_the_shorter_ago_there_was_work(monkeypatch) -> None:
    slept: list[float] = []
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", slept.append)
    pauses = Pauses()
    for seconds, later in [(3, 0.0), (3, 10.0), (3, 3600.0), (0.5, 0.0), (3, 0.0)]:  # 0.5: Flower waits for a reply
        now[0] += later
        pauses.sleep(seconds)
    assert slept == [0.5, 1.0, 3, 0.1, 0.5]
    assert pauses.time_ns is time.time_ns


def test_flowers_loop_waits_by_it(monkeypatch) -> None:
    from flwr.supernode import start_client_internal as flower

    monkeypatch.setattr(flower, "time", time)
    assert look_when_due()
    assert isinstance(vars(flower)["time"], Pauses)
    assert not look_when_due()  # another loop: left alone
