"""Clocks that can be moved while programs run: a small library, loaded before all others, shifts what they read of the time.

Only the clock that people set is moved, and not the one that counts on from the machine's start: waits stay what they are
(libfaketime moves both, and Python's waits hang). By how much stands in a file: a clock jumps when it is written.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *told; /* the file, whose rest of a page reads as zeros */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_CLOCK"); /* nginx clears its environment, and its workers may not open the file */
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) told = page;
}

static long ahead(void) { return told ? atol(told) : 0; }

int clock_gettime(clockid_t clock, struct timespec *at) {
    int code = syscall(SYS_clock_gettime, clock, at);
    if (!code && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
    return code;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) { at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; }
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def compiler() -> str | None:
    """A C compiler."""
    return shutil.which("cc") or shutil.which("gcc")


@cache
def library() -> str:
    """The library, made once; "" where there is no compiler."""
    if not compiler():
        return ""
    folder = Path(tempfile.mkdtemp(prefix="fedmri-clock-"))
    (folder / "clock.c").write_text(SOURCE)
    command = [str(compiler()), "-O2", "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(folder / "clock.c")]
    subprocess.run(command, check=True)
    return str(folder / "clock.so")


def remove_library() -> None:
    """Delete it."""
    if library.cache_info().currsize and library():
        shutil.rmtree(Path(library()).parent, ignore_errors=True)


def clock_of(home: Path) -> Path:
    """The file by which the clock of a home's programs is moved."""
    return home.resolve().with_name(f"{home.name}.clock")


def move(home: Path, seconds: int) -> None:
    """Set the clock of a home's programs ahead of this machine's; below 0: behind."""
    _write(clock_of(home), seconds)


def _write(clock: Path, seconds: int) -> None:
    """In the place of what is there, whose length stays: who has it in memory sees no file without an end."""
    with clock.open("r+b" if clock.is_file() else "wb") as file:
        file.write(f"{seconds:>20}".encode())


@contextmanager
def moving_clock(clock: Path, **more: str) -> Iterator[None]:
    """What is started meanwhile, and what that starts later, reads the clock that `clock` moves.

    Args:
        clock: of `clock_of`.
        more: also in its environment.
    """
    if not clock.is_file():
        _write(clock, 0)
    set_, before = {"LD_PRELOAD": library(), "FAULT_CLOCK": str(clock), **more}, dict(os.environ)
    os.environ.update({name: value for name, value in set_.items() if value})
    try:
        yield
    finally:
        for name in set_:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
