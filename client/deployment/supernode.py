"""Flower's SuperNode, in a process that ends with it: `python -m client.deployment.supernode`, with Flower's own arguments.

Flower gives a connection up where an error speaks of TLS, as where a network goes in the middle of a handshake. Its loop is over
then, and a thread that serves the site's own programs keeps the process there for ever: a hospital that looks well and hears
nothing. Here the process is over with the loop, and the supervisor starts another.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

ENDED = 1  # Flower's loop has no good end of its own


def end_with(program: Callable[[], None]) -> NoReturn:
    """Run a program and end the process with it, whatever threads it leaves.

    Args:
        program: its return, or what it raises, is the end; the code of a `SystemExit` is the process's.
    """
    code = ENDED
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else ENDED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Flower's `flower-supernode`, with its own arguments."""
    from flwr.supernode.cli.flower_supernode import flower_supernode  # noqa: PLC0415  (heavy)

    sys.argv[0] = "flower-supernode"
    end_with(flower_supernode)


if __name__ == "__main__":
    main()
