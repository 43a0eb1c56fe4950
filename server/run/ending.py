"""How a run ends: in good order with a sentence that says why, and how to go on."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from logging import ERROR, WARNING
from pathlib import Path

from flwr.supercore import log

from common.clock import ClockWatch, span_words
from common.errors import FederationError, FedMRIError
from common.files import write_atomic
from common.text import printable
from server.run.resume import RunFolderTakenError
from server.strategy.progress import Progress

ERROR_NAME = "error.json"
RENEWED = "after `fedmri-server renew`, stop and start, go on with --resume."


@contextmanager
def leave_error(out: Path) -> Iterator[None]:
    """Write the sentence of an error that ends the run into RUN/error.json: Flower itself keeps none.

    Where another server runs in the folder, it stays as it is: an error there would be taken for that run's.
    """
    watch = ClockWatch()
    try:
        with watch:
            yield
    except RunFolderTakenError as error:
        log(ERROR, "%s", error)
        raise
    except BaseException as error:  # Flower ends its app by a signal where the SuperLink knows it no more
        sentence = _sentence(error) + _clock_moved(watch.moved)
        if isinstance(error, Exception):
            log(ERROR, "The run ended with an error.", exc_info=error)
        else:  # nothing is wrong with the program
            log(WARNING, "%s", sentence)
        with suppress(OSError):  # the disk may be what ended the run
            write_atomic(out / ERROR_NAME, json.dumps({"error": sentence}).encode())
        raise


def _sentence(error: BaseException) -> str:
    if isinstance(error, FedMRIError):
        return str(error)
    if not isinstance(error, Exception):
        return "The run was stopped from outside: by `cancel`, with the service, or by a signal. Go on with it by --resume."
    said = printable(str(error), 300)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"The SuperLink's certificate is refused ({said}). See `fedmri-server status`; {RENEWED}"
    return f"{type(error).__name__}: {said}"


def _clock_moved(moved: float) -> str:
    """Where this machine's clock was set while the run was on, that is what Flower ended it for: it takes it for silence."""
    if not moved:
        return ""
    way = "forward" if moved > 0 else "back"
    return (
        f" This machine's clock was set {way} by {span_words(moved)} while the run was on, which Flower takes for silence of its "
        "programs and of the hospitals, whose signatures it refuses. Set it right (NTP), and see `fedmri-server status`."
    )


@contextmanager
def room_on_disk(out: Path) -> Iterator[None]:
    """A result that cannot be written ends the run in good order.

    Raises:
        FederationError: names the file, and how to go on.
    """
    try:
        yield
    except OSError as error:
        where = Path(error.filename).name if isinstance(error.filename, str) else "a file"
        raise FederationError(
            f"Run folder {out}: {where} could not be written ({error.strerror or error}). The finished rounds are kept: make "
            "room, then go on with --resume."
        ) from error


@contextmanager
def told_of_end(progress: Progress) -> Iterator[None]:
    """Write down how the run ended."""
    with closing(progress):
        progress.set_state("waiting")
        try:
            yield
        except BaseException as error:
            with suppress(FederationError):  # the disk may be what ended the run
                progress.ended("failed", _sentence(error))
            raise
        try:
            progress.ended("finished")
        except FederationError as error:  # the report is there, and marks success
            log(WARNING, "%s", error)
