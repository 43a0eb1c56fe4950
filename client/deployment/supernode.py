"""Flower's SuperNode, in a process that ends with it: `python -m client.deployment.supernode`, with Flower's own arguments.

Flower gives a connection up where an error speaks of TLS, as where a network goes in the middle of a handshake. Its loop is over
then, and a thread that serves the site's own programs keeps the process there for ever: a hospital that looks well and hears
nothing. Here the process is over with the loop, and the supervisor starts another.

Flower's loop looks for a request every 3 s, and for a reply every half second. Here it looks for a request the more often the
shorter ago it was at work (`client.gate.polling`), and for a reply ten times a second, which asks nobody but this process.
Where Flower's loop is another by now, it waits as Flower does.
"""

import sys
import time
from typing import Any

from client.gate.polling import pause_after
from common.deployment.process_end import end_with

ENDED = 1  # Flower's loop has no good end of its own
IDLE_SECONDS = 3  # Flower's own wait where there is no request; its shorter ones are for the reply to one
REPLY_SECONDS = 0.1
TIMES = 2.0  # as long between two looks as within the site: the coordinator answers all hospitals


class Pauses:
    """Stands for the module `time` in Flower's loop, which only sleeps by it."""

    def __init__(self) -> None:
        self.busy = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait as is due: `IDLE_SECONDS` are Flower's for the next request, less for the reply to one."""
        if seconds < IDLE_SECONDS:
            self.busy = time.monotonic()
            time.sleep(min(seconds, REPLY_SECONDS))
        else:
            time.sleep(min(seconds, TIMES * pause_after(time.monotonic() - self.busy)))

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def look_when_due() -> bool:
    """Let Flower's loop of this process look for requests as often as is due; False where Flower has another loop by now."""
    from flwr.supernode import start_client_internal as flower  # noqa: PLC0415  (heavy)

    if getattr(flower, "time", None) is not time:
        return False
    setattr(flower, "time", Pauses())  # noqa: B010  a module's name, which mypy knows as another thing
    return True


def main() -> None:
    """Flower's `flower-supernode`, with its own arguments."""
    from flwr.supernode.cli.flower_supernode import flower_supernode  # noqa: PLC0415  (heavy)

    def loop() -> int:
        flower_supernode()
        return ENDED

    if not look_when_due():
        print(
            "This version of Flower looks for requests in another way than is known here: as often as it does by itself.",
            flush=True,
        )
    sys.argv[0] = "flower-supernode"
    end_with(loop)


if __name__ == "__main__":
    main()
