"""Checks of the way to the coordinator: name, port, TLS, /health, clock; and whether it knows this site."""

from collections.abc import Iterator
from shlex import quote

from client.deployment.connectivity import Reached, UnreachableError, reach
from client.deployment.exit_reasons import clock_fault, clock_words
from client.deployment.home import SiteHome
from client.doctor.check_result import FAILED, NOTE, OK, WARNING, Finding

STEPS = {"name": "has an address", "port": "answers", "TLS": "has a certificate from the authority in ca.crt", "health": ""}
CLOCK_SECONDS = 5.0
SOON_DAYS = 30.0


def check_network(home: SiteHome, patience: float) -> Iterator[Finding]:
    """One row a step; what comes after a step that failed is not known."""
    host, port = home.server
    try:
        reached = reach(host, port, home.ca, patience)
    except UnreachableError as error:
        yield from _passed(f"{host}:{port}", until=error.step)
        yield Finding(error.step, FAILED, str(error), error.advice)
        return
    yield from _passed(f"{host}:{port}" + (f", through the proxy {reached.proxy}," if reached.proxy else ""), until="TLS")
    yield _certificate(f"{host}:{port}", reached)
    if reached.status == 200:
        yield Finding("health", OK, f"{host}:{port} reports that it serves.")
    else:
        text = f"{host}:{port} answers /health with HTTP {reached.status}: the door is there, the server behind it is not."
        yield Finding("health", FAILED, text, "Tell the coordinator: `fedmri-server status` shows them why.")
    yield _clock(reached.ahead)


def check_admitted(home: SiteHome) -> Iterator[Finding]:
    """Whether the server accepts the site's key, from a running site's log; only joining can show it."""
    from client.deployment.status import site_status  # noqa: PLC0415  (heavy)

    told = site_status(home)
    if told["connected"]:
        yield Finding("admitted", OK, "The site runs and is connected: the coordinator knows this site's key.")
    elif told["state"] == "running":
        yield Finding("admitted", WARNING, told["sentence"])
    else:
        folder = quote(str(home.folder))
        text = "Whether the coordinator has admitted this site's key shows only once the site runs."
        yield Finding("admitted", NOTE, text, f"fedmri-site start {folder}, then fedmri-site status {folder}")


def _passed(where: str, until: str) -> Iterator[Finding]:
    """The steps before `until`, which went well."""
    for step, words in STEPS.items():
        if step == until:
            return
        yield Finding(step, OK, f"{where} {words}.")


def _certificate(where: str, reached: Reached) -> Finding:
    text = f"{where} {STEPS['TLS']}, for {reached.days_left:.0f} more days."
    soon = reached.days_left < SOON_DAYS
    return Finding("TLS", WARNING if soon else OK, text, "Remind the coordinator: `fedmri-server renew`." if soon else "")


def _clock(ahead: float | None) -> Finding:
    if ahead is None:
        return Finding("clock", WARNING, "The server's answer has no date: the clocks were not compared.")
    if fault := clock_fault(ahead):
        text = f"The server will refuse this machine's signatures: {fault}."
        advice = "One of the two is wrong: set this machine's clock (NTP) if it is; if it is right, tell the coordinator."
        return Finding("clock", FAILED, text, advice)
    if abs(ahead) > CLOCK_SECONDS:
        return Finding("clock", WARNING, f"This machine's clock is {clock_words(ahead)} the server's.", "Set it (NTP).")
    return Finding("clock", OK, "This machine's clock and the server's agree within 5 s.")
