"""The end of a gate whose SuperExec is gone: nobody would take its reply, or end it.

Flower's own watch raises SIGINT in the watching thread: a main thread that waits in a system call, for the bundle's process or
for a SuperNode that is gone as well, does not wake up for it. A signal sent to the process does wake it.
"""

import os
import signal
import threading
import time

INTERVAL, PATIENCE = 0.5, 30.0  # seconds: between two looks; for an end in good order


def end_without(parent: int, *, patience: float = PATIENCE) -> None:
    """Watch the parent from a thread; once it is gone this process gets SIGTERM, and ends by force if it is there still.

    Args:
        parent: process id of who started this process.
        patience: seconds between the two.
    """
    threading.Thread(target=_watch, args=(parent, patience), daemon=True).start()


def _watch(parent: int, patience: float) -> None:
    first = os.getppid()  # another one as soon as it is gone, also where nobody takes note of its end
    while os.getppid() == first and _exists(parent):  # it may be gone already
        time.sleep(INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(patience)
    os._exit(128 + signal.SIGTERM)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True
