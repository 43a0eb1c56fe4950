"""Doctor, the way to the coordinator: name, port, TLS, /health, clock."""

from collections.abc import Iterator

from client.doctor import FAILED, FEW_DAYS, OK, WARNING, Row
from client.explain import clock_fault, clock_words
from client.home import SiteHome
from client.reach import PATIENCE, Reached, UnreachableError, reach

STEPS = ("name", "port", "TLS", "health")
CLOCK_SECONDS = 5.0


def check_network(home: SiteHome, patience: float = PATIENCE) -> Iterator[Row]:
    """Reach the coordinator once; the first step that fails ends it.

    Args:
        patience: seconds for each step.
    """
    host, port = home.server
    fine = {
        "name": f"{host} has an address.",
        "port": f"Port {port} answers.",
        "TLS": "The certificate is from the authority in ca.crt and for this name.",
    }
    try:
        reached = reach(host, port, home.ca, patience)
    except UnreachableError as error:
        for step in STEPS[: STEPS.index(error.step)]:
            yield Row(step, OK, fine[step])
        yield Row(error.step, FAILED, str(error), error.advice)
        return
    yield Row("name", OK, fine["name"])
    yield Row("port", OK, fine["port"])
    yield _certificate(reached, fine["TLS"])
    yield _health(reached)
    yield _clock(reached)


def _certificate(reached: Reached, fine: str) -> Row:
    said = f"{fine} It is valid for {reached.days_left:.0f} more days."
    if reached.days_left < FEW_DAYS:
        return Row("TLS", WARNING, said, "Tell the coordinator to renew it (`fedmri-server renew`).")
    return Row("TLS", OK, said)


def _health(reached: Reached) -> Row:
    if reached.status == 200:
        return Row("health", OK, "The server answers.")
    advice = "Tell the coordinator: the door answers, but not the server behind it. Sites reconnect by themselves."
    return Row("health", FAILED, f"The server answers /health with status {reached.status}, expected 200.", advice)


def _clock(reached: Reached) -> Row:
    if reached.ahead is None:
        return Row("clock", WARNING, "The server's answer has no date to compare with.", "Compare the clock by hand.")
    said = f"This machine's clock is {clock_words(reached.ahead)} the server's."
    advice = "Set the clock by NTP (timedatectl set-ntp true); if it is right here, tell the coordinator."
    if clock_fault(reached.ahead):
        return Row("clock", FAILED, f"{said} The server refuses signatures of another time.", advice)
    if abs(reached.ahead) > CLOCK_SECONDS:
        return Row("clock", WARNING, said, advice)
    return Row("clock", OK, "The clock agrees with the server's to a few seconds.")
