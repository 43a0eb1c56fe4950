"""A SuperNode's process ends with Flower's loop, whatever threads that leaves."""

import subprocess
import sys

import pytest

LEAVES_A_THREAD = """
import threading, time
from client.deployment.supernode import end_with

def loop():
    threading.Thread(target=time.sleep, args=(600,)).start()  # as Flower's, which serves the site's programs: no daemon
    print("over", flush=True)
    {end}

end_with(loop)
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("return", 1, ""),
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
