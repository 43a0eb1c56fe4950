"""Stands in for every program that Flower's executor may start at a hospital: `python -m client.gate NAME ...`."""

import logging
import os
import signal
import sys
from pathlib import Path

from client.gate.gate import Gate
from client.gate.kept_process import KeptProcess
from client.gate.supernode import serve
from common.config.site import SITE_VARIABLE

LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def main(argv: list[str] | None = None, kept: KeptProcess | None = None) -> int:
    """Answer one message; returns the exit code.

    Args:
        argv: the name of Flower's program, then its arguments.
        kept: the warm process of a bundle, where this gate was forked beside it (`client.gate.preloaded`).
    """
    os.umask(0o077)
    name, *arguments = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return serve(name, arguments, Gate(Path(os.environ.get(SITE_VARIABLE, "")), kept))


if __name__ == "__main__":
    sys.exit(main())
