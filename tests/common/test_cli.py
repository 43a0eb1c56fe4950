"""What the three commands share: into a pipe, a file and a narrow terminal their words come whole and in time."""

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli import add_debug, run_command

VERB = """
import argparse, time
from common.cli import add_debug, output, run_command

def handler(arguments):
    for number in range(arguments.lines):
        print(f"Round {number}")
    if arguments.wait:
        time.sleep(60)
    return 0

parser = argparse.ArgumentParser()
verb = parser.add_subparsers().add_parser("go")
verb.add_argument("--lines", type=int, default=1)
verb.add_argument("--wait", action="store_true")
add_debug(verb)
verb.set_defaults(handler=handler)
raise SystemExit(run_command(parser, None))
"""


def command(tmp_path: Path, *arguments: str) -> list[str]:
    (tmp_path / "verb.py").write_text(VERB)
    return [sys.executable, str(tmp_path / "verb.py"), "go", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])} | {"PYTHONUNBUFFERED": ""}


def test_a_pipe_whose_reader_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--lines", "100000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"Round 0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_log_file_shows_a_line_when_it_is_said(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(tmp_path, "--wait"), stdout=log, env=environment())
    try:
        for _ in range(300):
            if (tmp_path / "log").read_text() == "Round 0\n":
                return
            assert process.poll() is None
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("nothing was written in 30 s")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "/site/site.log"),
            "Error: /site/site.log: Read-only file system. It lies on",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "Error: /a: Permission denied. Give this user the right"),
        (OSError(errno.ENOSPC, "No space left on device"), "Error: Writing or reading: No space left on device. Make room."),
        (OSError(errno.ENOTDIR, "Not a directory", "a", None, "b"), "Error: a -> b: Not a directory. With --debug"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_sentence(error: OSError, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(error), ["go"]) == 1
    assert capsys.readouterr().err.startswith(says)
    with pytest.raises(type(error)):
        run_command(raising(error), ["go", "--debug"])


def test_an_error_that_is_of_no_file_keeps_its_traceback() -> None:
    with pytest.raises(TimeoutError):
        run_command(raising(TimeoutError("a fault of ours")), ["go"])


def raising(error: OSError) -> argparse.ArgumentParser:
    def handler(arguments: argparse.Namespace) -> int:
        raise error

    parser = argparse.ArgumentParser()
    verb = parser.add_subparsers().add_parser("go")
    add_debug(verb)
    verb.set_defaults(handler=handler)
    return parser
