"""Clocks that can be moved while programs run: a small library, loaded before all others, shifts what they read of the time.

Only the clock that people set is moved, and not the one that counts on from the machine's start: waits stay what they are
(libfaketime moves both, and Python's waits hang). By how much stands in a file, read at every look: a clock jumps when it is
written.
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
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char path[4096];

__attribute__((constructor)) static void begin(void) {
    const char *told = getenv("FAULT_CLOCK"); /* nginx clears its environment later */
    if (told && strlen(told) < sizeof path) strcpy(path, told);
}

static long ahead(void) {
    char text[32] = {0};
    if (!path[0]) return 0;
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long size = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return size > 0 ? atol(text) : 0;
}

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
    clock_of(home).write_text(str(seconds))


@contextmanager
def moving_clock(clock: Path, **more: str) -> Iterator[None]:
    """What is started meanwhile, and what that starts later, reads the clock that `clock` moves.

    Args:
        clock: of `clock_of`.
        more: also in its environment.
    """
    set_, before = {"LD_PRELOAD": library(), "FAULT_CLOCK": str(clock), **more}, dict(os.environ)
    os.environ.update({name: value for name, value in set_.items() if value})
    try:
        yield
    finally:
        for name in set_:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
