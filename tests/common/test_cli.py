"""What the three commands share: into a pipe, a file and a narrow terminal their words come whole and in time."""

import os
import subprocess
import sys
from pathlib import Path

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
