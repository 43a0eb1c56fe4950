"""What the three commands share: how errors are shown, exit codes, where configurations are found."""

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console

from common.errors import ConfigError, FedMRIError

FILE_WIDTH = 160  # columns of a table that no terminal limits
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WHAT_TO_DO = {
    errno.EROFS: "It lies on a read-only file system: mount that for writing, or name another place.",
    errno.ENOSPC: "Make room.",
    errno.EDQUOT: "Make room within this user's quota, or have it raised.",
    errno.EACCES: "Give this user the right, or give the command as the user whose it is.",
    errno.EPERM: "Give this user the right, or give the command as the user whose it is.",
    errno.EIO: "The disk, or the network to it, fails: see `dmesg`.",
    errno.ESTALE: "The network's file system was changed under this command: mount it anew.",
}


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse, run the verb's `handler(arguments) -> int`, and turn our own and the system's errors into one or two lines.

    Returns:
        The exit code: 0 success, 1 the work failed, 2 wrong use (a `ConfigError` counts as wrong use), 130 interrupted, 141 the
        reader of a pipe went away.
    """
    arguments = parser.parse_args(argv)
    handler: Callable[[argparse.Namespace], int] = arguments.handler
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows a line when it is said, not when the program ends
    try:
        return while_read(lambda: handler(arguments))
    except FedMRIError as error:
        if arguments.debug:
            raise
        Console(stderr=True, soft_wrap=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if arguments.debug or (error.filename is None and error.errno not in WHAT_TO_DO):
            raise
        Console(stderr=True, soft_wrap=True).print(f"Error: {told(error)}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def while_read(work: Callable[[], int]) -> int:
    """Do what prints; its exit code, or 141 where the reader of the pipe went away: `| head` has seen enough."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def told(error: OSError) -> str:
    """What the system refused, in which place, and what to do."""
    where = " -> ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    advice = WHAT_TO_DO.get(error.errno or 0, "With --debug the command shows where it happened.")
    return f"{where or 'Writing or reading'}: {error.strerror}. {advice}"


def add_rooms(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", rooms: Mapping[str, Sequence[str]], argv: list[str] | None
) -> None:
    """Add a program's verbs; of one room alone where `argv` says which: no verb waits for what others load (Flower, nibabel).

    Args:
        verbs: the program's subparsers.
        rooms: "MODULE:FUNCTION", which adds verbs, to the names of those verbs.
        argv: what the program was given; None: the command line.
    """
    verb = next(iter(sys.argv[1:] if argv is None else argv), "")
    asked = [room for room, names in rooms.items() if verb in names]
    for room in asked or rooms:
        module, function = room.split(":")
        getattr(importlib.import_module(module), function)(verbs)


def output() -> Console:
    """Standard output for tables: as wide as the terminal, and wide enough where it is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, FILE_WIDTH))


def add_debug(parser: argparse.ArgumentParser) -> None:
    """The one flag that every verb has: show the traceback."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_unlabelled(parser: argparse.ArgumentParser) -> None:
    """The flag that lets a run go on in which no patient has a label."""
    parser.add_argument("--unlabelled", action="store_true", help="train though no patient of any training site has a label")


def settings_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What `--set` and `--unlabelled` change of the configuration."""
    settings = tuple(arguments.set if hasattr(arguments, "set") else arguments.settings)
    return (*settings, "federation.unlabelled=true") if arguments.unlabelled else settings


def config_path(name: str) -> Path:
    """The file for a configuration's name (`demo`) or path (`my/run.toml`).

    Raises:
        ConfigError: neither is there; names those that are.
    """
    for candidate in (CONFIGS / f"{name}.toml", Path(name)):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
    raise ConfigError(f"Configuration '{name}': no such file, and none of the names that come with FedMRI ({known}).")
