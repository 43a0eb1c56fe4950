"""Runs one import again and again, each time killed (SIGKILL) EVERY steps later, and once more to its end; a program of its own.

    python killed_imports.py SOURCE PREPARED WORK EVERY

PREPARED is a home with a plan. WORK gets `whole`, the import that nobody killed, and a folder for each step at which one was
killed and then went on. A step is whatever changes the disk: a file opened for writing, a folder made, something moved or
removed.
"""

import argparse
import csv
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from client.cli import importing
from client.data import patient
from client.data.registration import Registration

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink"}
STILL = Registration(np.eye(4), information=(0.0, 1.0), inconsistency=0.0, overlap=1.0, shift=0.0, turn=0.0)


def kill_at(step: int, below: Path) -> None:
    """Be killed at the n-th step below a folder."""
    steps = iter(range(1, step))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        here = (writes or event in CHANGES) and isinstance(arguments[0], str | os.PathLike)
        if here and str(below) in str(arguments[0]) and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run(source: Path, home: Path, step: int = 0) -> int:
    """One import in a process of its own; returns the signal that ended it, 0: none."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"exit code {os.WEXITSTATUS(status)} at step {step}"
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 1
    try:
        if step:
            kill_at(step, home)
        code = follow(source, home)
    finally:
        os._exit(code)


def require_true(home: Path) -> None:
    """What the log of a killed import calls used is in the site folder; what is half-written there it does not call so."""
    with (home / "state" / "import.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            there = (home / "site" / row["patient"]).is_dir()
            assert there or row["outcome"] != "used", f"{home.name}: {row}"


def follow(source: Path, home: Path) -> int:
    """The import itself, in this process."""
    parser = argparse.ArgumentParser()
    importing.add_import(parser.add_subparsers())
    tables = ["--masks", home / "masks.csv", "--labels", home / "labels.csv", "--columns", "subtype", "--brain", "none"]
    wanted = ["import", source, "--go", "--plan", home / "plan.tsv", "--out", home / "site", *tables]
    arguments = parser.parse_args([str(one) for one in wanted])
    return int(arguments.handler(arguments))


def main(source: Path, prepared: Path, work: Path, every: int) -> None:
    """Kill at every so manieth step, until there is none left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    setattr(importing, "main", lambda _: 0)  # noqa: B010  # the check of the folder at the end is no part of it
    setattr(patient, "register", lambda *_: STILL)  # noqa: B010  # most of an import's time, and none of its steps
    follow(source, Path(shutil.copytree(prepared, work / "whole")))  # here, so that all is loaded before the first fork
    step, ended = 1 - every, int(signal.SIGKILL)
    while ended:
        step += every
        home = Path(shutil.copytree(prepared, work / f"step-{step:03d}"))
        ended = run(source, home, step)
        require_true(home)
        run(source, home)
    shutil.rmtree(work / f"step-{step:03d}")


if __name__ == "__main__":
    folders = [Path(one) for one in sys.argv[1:4]]
    main(folders[0], folders[1], folders[2], int(sys.argv[4]))
