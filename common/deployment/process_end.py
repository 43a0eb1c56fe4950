"""A process that ends with its program, whatever threads that leaves."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

FAILED = 1


def end_with(program: Callable[[], int]) -> NoReturn:
    """Run the program, and end this process with its exit code."""
    code = FAILED
    try:
        code = program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else FAILED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
