"""Processes that a run starts carry a mark in their environment, so that each can be found and ended, whatever became of it."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

MARK = "FEDMRI_PROCESS_MARK"
GRACE_SECONDS = 6.0
# One thread a virtual site: they share the cores, and sums keep one order.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def end_marked(mark: str) -> None:
    """End every process whose environment carries `mark`: asked at first, then killed."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        deadline = time.monotonic() + patience
        asked: set[int] = set()
        while (alive := marked(mark)) and time.monotonic() < deadline:
            for pid in alive - asked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            asked |= alive
            time.sleep(0.1)


def marked(mark: str) -> set[int]:
    """Process ids whose environment carries `mark`, this process and zombies left out (Linux: /proc)."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.add(int(folder.name))
    return found


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what stands in `finally` is done. No effect outside the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handled({signal.SIGTERM: stop, signal.SIGHUP: stop}):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no further signal cut the tidying up short."""
    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGINT), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, "signal._HANDLER"]) -> Iterator[None]:
    """Set signal handlers for a while; Python allows it in the main thread only."""
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
