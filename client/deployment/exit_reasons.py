"""Why a site's program ended, in a sentence for the hospital: from the end of its log, and by comparing clocks."""

import re
from pathlib import Path

from client.deployment.connectivity import Reached, UnreachableError, reach
from client.deployment.home import SiteHome
from common.clock import span_words
from common.deployment.flower_cli import SUPERNODE
from common.deployment.supervisor import Program

TAIL_BYTES = 200_000
INVALID_KEY, NO_CONNECTION, OTHER_VERSION = 302, 305, 606  # flwr.supercore.exit.ExitCode
ONLINE_TRIES = 9  # restarts within which the server may still think a site online that was cut off (about 60 s)
STARTED_NOW = "-- fedmri-site start --"  # in the SuperNode's log: what stands before was another start's
_CONNECTED = ("SuperNode ID:", "Connection successful after", "Received successfully", "Sent successfully")
GIVEN_UP = "Giving up reconnection"  # Flower tries no more where an error speaks of TLS
_LOST = ("Starting Flower SuperNode", "Connection attempt failed", GIVEN_UP, "Exit Code:", "terminated gracefully")


def read_tail(log: Path, size: int = TAIL_BYTES) -> str:
    """The last `size` bytes of a log, the file that was rotated last included; "" where there is none."""
    found = b""
    for file in (log, log.with_name(f"{log.name}.1")):
        try:
            with file.open("rb") as content:
                content.seek(max(0, content.seek(0, 2) - (size - len(found))))
                found = content.read() + found
        except OSError:
            continue
        if len(found) >= size:
            break
    return found.decode("utf-8", "replace")


def is_connected(text: str) -> bool:
    """Whether a SuperNode's log says that it is connected: which of the two kinds of lines came last."""
    return max(map(text.rfind, _CONNECTED)) > max(map(text.rfind, _LOST))


def explain(home: SiteHome, program: Program, code: int, moved: float = 0.0) -> str:
    """For `Supervisor.on_exit`: a sentence, or "" where the cause is not known.

    Args:
        home: the site's.
        program: that ended.
        code: its exit code; negative: a signal's number.
        moved: seconds by which this machine's clock was set since the site started (`common.clock.moved_since`).
    """
    text = read_tail(program.log)
    last = text[max(text.rfind("Starting Flower"), 0) :]
    found = re.findall(r"Exit Code: (\d+)", last)
    number = int(found[-1]) if found else 0
    if program.name == SUPERNODE and number == NO_CONNECTION:
        return _no_connection(home, text, last, moved)
    if program.name == SUPERNODE and not number and GIVEN_UP in last:
        return _on_the_way(home, text, moved)
    if program.name == SUPERNODE and not number and "terminated gracefully" in last:
        return _turned_away(home, text, moved)  # nobody here asked it to end: the server answered 401
    if code < 0:
        return f"ended by signal {-code}"
    if "address already in use" in last:
        return "another program took its loopback port; stop the site and start it again"
    known = {
        INVALID_KEY: f"the private key {home.key} cannot be used; `fedmri-site doctor` says more",
        OTHER_VERSION: "the server's Flower is of another version; install the version of FedMRI that the coordinator names",
    }
    said = f"with Flower's code {number}" if number else f"by itself (exit {code})"
    return known.get(number, f"ended {said}; its log is {program.log}")


def _no_connection(home: SiteHome, text: str, last: str, moved: float) -> str:
    """Flower's exit code 305: what the connection failed for."""
    if "[code:" not in last.lower():  # Flower's server itself said nothing: the way to it, the door before it, or a signature
        return _on_the_way(home, text, moved)
    since = text[max(text.rfind("SuperNode ID:"), 0) :]
    cut_off = "SuperNode ID:" in since and "terminated gracefully" not in since
    if cut_off and since.count(f"Exit Code: {NO_CONNECTION}") <= ONLINE_TRIES:
        return "the server still thinks that this site is online, as it does for a minute after a sudden end; retrying"
    if "SuperNode ID:" in text:
        return (
            "the server does not know this site's key any more. Where it has lost its database it lets its sites in again by "
            "itself, within a minute; if this lasts, another copy of this site may be connected by the key, or "
            "the key was taken back: ask the coordinator; retrying"
        )
    return (  # Flower gives both one code
        "the server does not know this site's key, or another copy of this site is connected by it. Where this one was restored "
        f"or copied, stop the other for good; else send {home.public_key} to the coordinator, who admits it; retrying"
    )


def _on_the_way(home: SiteHome, text: str, moved: float) -> str:
    try:
        reached = reach(*home.server, home.ca, 5.0)
    except UnreachableError as error:
        return f"{error} {error.advice}"
    if reached.status != 200:
        return f"the coordinator's door answers, but not the server behind it (HTTP {reached.status}); retrying"
    return _wrong_clock(reached, text, moved) or "the server was not reached a moment ago, and is now; retrying"


def _turned_away(home: SiteHome, text: str, moved: float) -> str:
    """The server refused a signature: a wrong clock, or a key that was taken back."""
    try:
        reached = reach(*home.server, home.ca, 5.0)
    except UnreachableError as error:
        return f"the connection ended. {error}"
    return (
        _wrong_clock(reached, text, moved)
        or "the server refuses this site's key: it may have been taken back. Ask the coordinator; retrying"
    )


def _wrong_clock(reached: Reached, text: str, moved: float) -> str:
    """Which of two clocks is wrong no connection tells; what is known of this one does."""
    wrong = clock_fault(reached.ahead) if reached.ahead is not None else ""
    return f"the server refuses this machine's signatures: {wrong}. {_whose_clock(text, moved)}; retrying" if wrong else ""


def _whose_clock(text: str, moved: float) -> str:
    """What to do about two clocks that differ.

    Args:
        text: the SuperNode's log.
        moved: seconds by which this machine's clock was set since the site started; 0: it was not.
    """
    if moved:
        way = "forward" if moved > 0 else "back"
        return f"This machine's clock was set {way} by {span_words(moved)} since the site started: set it right (NTP)"
    if "SuperNode ID:" in text[max(text.rfind(STARTED_NOW), 0) :]:
        return (
            "This machine's clock has not been set since the site started, and the server took it before: then the coordinator's "
            "clock has moved. Look whether this one is right (NTP) before you set it, and ring the coordinator"
        )
    return "One of the two is wrong: set this machine's clock (NTP) if it is; if it is right, tell the coordinator"


def clock_fault(ahead: float) -> str:
    """What is wrong with a clock that is `ahead` seconds ahead; "" where Flower takes its signatures.

    Flower takes signatures up to SYSTEM_TIME_TOLERANCE from the future and TIMESTAMP_TOLERANCE more from the past.
    """
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE  # noqa: PLC0415  (heavy)

    low, high = -(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE), SYSTEM_TIME_TOLERANCE
    return "" if low < ahead < high else f"its clock is {clock_words(ahead)} the server's"


def clock_words(ahead: float) -> str:
    """Such as "2.0 hours behind"."""
    return f"{span_words(ahead)} {'ahead of' if ahead > 0 else 'behind'}"
