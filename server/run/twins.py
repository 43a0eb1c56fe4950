"""Before the first round of a real federation: sites find, through the server, patients whom another hospital has too.

The server carries what it cannot read (`common.messages.twins`), and is told counts at most.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from common.data.cases import read_site
from common.data.fingerprint import Fingerprint
from common.data.twins import patient_fingerprint
from common.errors import FederationError
from common.files import write_atomic
from common.messages.round import Task, write_task
from common.messages.secure_aggregation import from_record, to_record
from common.messages.twins import (
    EXTERNAL,
    SEALED,
    TWINS,
    Compare,
    Compared,
    Group,
    Grouped,
    Offer,
    Offered,
    Send,
    pack_external,
    pack_sealed,
    read_sealed,
)
from common.secure.masks import is_public_key
from server.run.asking import Asked, ask
from server.run.plan import RunPlan
from server.strategy.progress import Progress
from server.strategy.round_state import Address
from server.strategy.site_selection import Presence

NAME = "twins.json"
NUMBER = 1  # of the round that the exchange is for


class Exchange:
    """One comparison among the sites that are there.

    Args:
        grid: Flower's, to send by.
        task: the request to every site; the site is filled in.
        timeout: seconds that each of the four messages may take.
        progress: notified of sites.
    """

    def __init__(self, grid: Grid, task: Task, timeout: float, progress: Progress) -> None:
        self.grid, self.task, self.timeout, self.progress = grid, task, timeout, progress
        self.session = os.urandom(16).hex()
        self.failures: dict[str, str] = {}

    def run(self, there: Sequence[Address], external: Sequence[Fingerprint]) -> dict[str, Any]:
        """`twins` of report.json: what each site tells, and why others had no part."""
        publics = self._offers(there)
        members = [address for address in there if address.name in publics]
        if members and (letters := self._group(members, publics)) is not None:
            sealed = self._sealed(members, publics, letters)
            return {"sites": self._compared(members, sealed, external), "failures": self.failures}
        return {"sites": {}, "failures": self.failures}

    def _offers(self, there: Sequence[Address]) -> dict[str, bytes]:
        """Each site's public key."""
        told = self._ask({address: self._request(address, Offer(self.session)) for address in there}, "offer")
        publics: dict[str, bytes] = {}
        for name, content in told.items():
            if (offered := self._read(name, content, Offered)) is None:
                continue
            if is_public_key(offered.public) and offered.public not in publics.values():
                publics[name] = offered.public
            else:
                self.failures[name] = "its key is no public key, or another site's"
        return publics

    def _group(self, members: list[Address], publics: Mapping[str, bytes]) -> tuple[bytes, ...] | None:
        """The encrypted group key, for seats 2 to n."""
        keys = tuple(publics[address.name] for address in members)
        told = self._ask({members[0]: self._request(members[0], Group(self.session, 1, keys))}, "group")
        grouped = self._read(members[0].name, told[members[0].name], Grouped) if told else None
        if grouped is not None and len(grouped.letters) == len(keys) - 1:
            return tuple(grouped.letters)
        for address in members:
            self.failures.setdefault(address.name, "the site that draws the group's key did not")
        return None

    def _sealed(self, members: list[Address], publics: Mapping[str, bytes], letters: tuple[bytes, ...]) -> dict[int, bytes]:
        """By seat, what nobody but the sites can read."""
        keys = tuple(publics[address.name] for address in members)
        requests = {
            address: self._request(address, Send(self.session, seat, keys, letters[seat - 2] if seat > 1 else b""))
            for seat, address in enumerate(members, start=1)
        }
        told, sealed = self._ask(requests, "send"), {}
        for seat, address in enumerate(members, start=1):
            if address.name in told:
                try:
                    sealed[seat] = read_sealed(told[address.name].get(SEALED), SEALED)
                except FederationError as error:
                    self.failures[address.name] = str(error)
        return sealed

    def _compared(
        self, members: list[Address], sealed: Mapping[int, bytes], external: Sequence[Fingerprint]
    ) -> dict[str, int | None]:
        """What each site tells: how many it leaves out, or None."""
        outside, requests = pack_external(external), {}
        for seat, address in enumerate(members, start=1):
            if seat in sealed:
                others = {other: one for other, one in sealed.items() if other != seat}
                content = self._request(address, Compare(self.session, tuple(sorted(others))))
                content[SEALED], content[EXTERNAL] = pack_sealed(others), outside
                requests[address] = content
        told, counts = self._ask(requests, "compare"), dict[str, int | None]()
        for name, content in told.items():
            if (compared := self._read(name, content, Compared)) is not None:
                counts[name] = compared.left_out if compared.shared else None
        return counts

    def _ask(self, requests: Mapping[Address, RecordDict], stage: str) -> dict[str, RecordDict]:
        if not requests:
            return {}
        asked: Asked = ask(self.grid, requests, NUMBER, self.timeout, f"twins-{stage}", self.progress)
        self.failures |= asked.failures
        return asked.told

    def _request(self, address: Address, message: Any) -> RecordDict:
        content = write_task(replace(self.task, round=NUMBER, site=address.site), None)
        content[TWINS] = to_record(message)
        return content

    def _read(self, name: str, content: RecordDict, kind: type[Any]) -> Any:
        try:
            return from_record(content.get(TWINS), kind)
        except FederationError as error:
            self.failures[name] = str(error)
            return None


def compare_sites(grid: Grid, plan: RunPlan, task: Task, presence: Presence, progress: Progress) -> dict[str, Any]:
    """`twins` of report.json; empty where the run's settings do not ask for it.

    Raises:
        FederationError: too few sites are connected, or the SuperLink is away.
    """
    if not plan.config.twins.exchange:
        return {}
    progress.set_state("comparing", NUMBER)
    presence.wait(grid, NUMBER)
    there, _ = presence.called(grid, NUMBER)
    found = Exchange(grid, task, plan.config.federation.round_timeout, progress).run(there, external_fingerprints(plan))
    for name, count in found["sites"].items():
        log(INFO, "Patients at another hospital too: %s leaves out %s", name, "(not told)" if count is None else count)
    for name, reason in sorted(found["failures"].items()):
        log(WARNING, "Patients were not compared at %s: %s", name, reason)
    return found


def keep_twins(plan: RunPlan, twins: dict[str, Any]) -> None:
    """Write RUN/twins.json, for a resumed run: sites compare once."""
    if twins:
        write_atomic(plan.out / NAME, json.dumps(twins, indent=1).encode())


def kept_twins(plan: RunPlan) -> dict[str, Any]:
    """What `keep_twins` wrote; empty where nobody compared."""
    try:
        found = json.loads((plan.out / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def external_fingerprints(plan: RunPlan) -> list[Fingerprint]:
    """Of the held-out hospital's patients, who lie here."""
    sites = [read_site(plan.data / name, plan.config, simulated=bool(plan.sites)) for name in plan.external]
    return [patient_fingerprint(case, plan.cache) for site in sites for case in site.cases]
