"""A site's part in finding the same person at two hospitals: it compares keyed fingerprints, and leaves its twins out.

What is found stays at the site (`client.round.left_out`). docs/privacy.md says who learns what.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cryptography.fernet import InvalidToken
from flwr.app import ConfigRecord, RecordDict
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from client.policy.asking import require_comparing
from client.round.left_out import ELSEWHERE, OUTSIDE, SiteTwin, note_twins, outside_way, require_wanted
from client.round.site_context import SiteContext
from client.round.train import require_same_code
from common.config.run import config_from_json
from common.data.cases import Site, read_site
from common.data.fingerprint import Fingerprint
from common.data.twins import find_twins, patient_fingerprint
from common.errors import FederationError
from common.messages.round import SiteReply, Task
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
    Sent,
    group_hash,
    read_external,
    read_sealed,
    stage_of,
    write_told,
)
from common.secure.masks import is_public_key
from common.secure.sealed_tokens import group_key, keyed, seal, unseal


class Found(NamedTuple):
    """A patient of this site who has a twin: their row, where the twin is, and whether this site is the one to leave them out."""

    row: int
    at: str
    leaves: bool


@dataclass(frozen=True)
class TwinSecrets:
    """What a site keeps from stage to stage, in its node's own memory."""

    stage: str  # the last that was done
    session: str
    secret: bytes
    seat: int = 0
    group: bytes = b""


def answer_twins(content: RecordDict, task: Task, context: SiteContext, state: RecordDict) -> tuple[RecordDict, Site]:
    """One stage. The secrets kept for it are wiped first: a stage that fails cannot be tried twice.

    Raises:
        PolicyError: the site takes no part, or refuses to train with what was found.
        FederationError: a message out of turn, or not readable.
        DataError, ConfigError: the site's folder is refused.
    """
    require_same_code(task)
    site = read_site(context.folder, config_from_json(task.config), simulated=context.simulated)
    require_comparing(site.config.policy)
    mine, stage, record = _recall(state, context.name), stage_of(content), content.get(TWINS)
    _keep(state, context.name, None)
    status = SiteReply(context.name, task.round)
    if stage == Offer.stage:
        kept, offered = offer(from_record(record, Offer))
        _keep(state, context.name, kept)
        return write_told(status, offered), site
    if mine is None:
        raise _refusal("the site has no exchange open")
    if stage == Group.stage:
        kept, grouped = form_group(from_record(record, Group), mine)
        _keep(state, context.name, kept)
        return write_told(status, grouped), site
    if stage == Send.stage:
        kept = take_key(from_record(record, Send), mine)
        _keep(state, context.name, kept)
        members = [keyed(tokens, kept.group) for tokens in _fingerprints(site, context)]
        random.SystemRandom().shuffle(members)  # a patient's place in the list says nothing
        return write_told(status, Sent(), seal(members, kept.group, kept.seat)), site
    asked = from_record(record, Compare)
    _require_turn(asked.session, mine, Send.stage)
    found = compare(asked, content, mine, _fingerprints(site, context))
    told = settle(found, site, context, task)
    return write_told(status, Compared(1, told) if site.config.policy.share_twins else Compared(0, 0)), site


def offer(asked: Offer) -> tuple[TwinSecrets, Offered]:
    """Make this exchange's keys."""
    secret, public = generate_key_pairs()
    return TwinSecrets(Offer.stage, asked.session, private_key_to_bytes(secret)), Offered(public_key_to_bytes(public))


def form_group(asked: Group, mine: TwinSecrets) -> tuple[TwinSecrets, Grouped]:
    """Draw the group's key, and encrypt it for every other site."""
    _require_turn(asked.session, mine, Offer.stage)
    _require_group(asked.publics, asked.seat, mine)
    if asked.seat != 1:
        raise _refusal("the group's key is the first seat's to draw")
    key, view = group_key(), group_hash(asked.session, asked.publics)
    letters = tuple(encrypt(_pair_key(mine, public), view + key) for public in asked.publics[1:])
    return replace(mine, stage=Group.stage, seat=1, group=key), Grouped(letters)


def take_key(asked: Send, mine: TwinSecrets) -> TwinSecrets:
    """The group's key; the first seat has it.

    Raises:
        FederationError: the letter cannot be opened, or its writer received other keys than this site.
    """
    _require_turn(asked.session, mine, Group.stage if mine.group else Offer.stage)
    _require_group(asked.publics, asked.seat, mine)
    view = group_hash(asked.session, asked.publics)
    if mine.group:
        return replace(mine, stage=Send.stage)
    try:
        plain = decrypt(_pair_key(mine, asked.publics[0]), asked.letter)
    except (InvalidToken, ValueError) as error:
        raise _refusal("the group's key cannot be decrypted") from error
    if plain[: len(view)] != view:
        raise _refusal("the first seat received other keys than this site")
    return replace(mine, stage=Send.stage, seat=asked.seat, group=plain[len(view) :])


def compare(asked: Compare, content: RecordDict, mine: TwinSecrets, own: Sequence[Fingerprint]) -> list[Found]:
    """Which of this site's patients have a twin, and where. Of two hospitals the one of the later seat leaves the person out."""
    found: dict[int, Found] = {}
    hashed = [keyed(tokens, mine.group) for tokens in own]
    for seat in sorted(asked.seats, reverse=True):
        others = unseal(read_sealed(content.get(SEALED), str(seat)), mine.group, seat)
        found |= {twin.first: Found(twin.first, ELSEWHERE, seat < mine.seat) for twin in find_twins(hashed, others)}
    outside = find_twins(own, read_external(content.get(EXTERNAL)))
    found |= {twin.first: Found(twin.first, OUTSIDE, True) for twin in outside}
    return [found[row] for row in sorted(found)]


def settle(found: Sequence[Found], site: Site, context: SiteContext, task: Task) -> int:
    """Write down what was found, and act by the policy; returns how many patients are left out.

    Raises:
        PolicyError: there are some, and the policy refuses the run, or the run refuses those who are external ones.
    """
    policy = site.config.policy.twins
    ways = {ELSEWHERE: policy, OUTSIDE: outside_way(policy, config_from_json(task.config).twins.with_external)}
    twins = [SiteTwin(site.cases[row].id, at, leaves=ways[at] == "drop" and leaves) for row, at, leaves in found]
    refused = [twin for twin in twins if ways[twin.at] == "refuse"]
    note_twins(context, task.run, "refuse" if refused else policy, twins)
    require_wanted(context, task.run, "refuse", refused)
    return sum(twin.leaves for twin in twins)


def _fingerprints(site: Site, context: SiteContext) -> list[Fingerprint]:
    return [patient_fingerprint(case, context.cache) for case in site.cases]


def _require_turn(session: str, mine: TwinSecrets, last: str) -> None:
    if session != mine.session or mine.stage != last:
        raise _refusal("the message is of another exchange, or out of turn")


def _require_group(publics: Sequence[bytes], seat: int, mine: TwinSecrets) -> None:
    """Refuse a list of keys that is not what an honest server would send."""
    own = public_key_to_bytes(bytes_to_private_key(mine.secret).public_key())
    if not 1 <= seat <= len(publics) or publics[seat - 1] != own or len(set(publics)) != len(publics):
        raise _refusal("the list of keys is not that of this exchange")
    if not all(is_public_key(public) for public in publics):
        raise _refusal("a key of another site is no public key")


def _pair_key(mine: TwinSecrets, public: bytes) -> bytes:
    return generate_shared_key(bytes_to_private_key(mine.secret), bytes_to_public_key(public))


def _recall(state: RecordDict, site: str) -> TwinSecrets | None:
    record = state.get(f"{TWINS}-{site}")
    return from_record(record, TwinSecrets) if isinstance(record, ConfigRecord) else None


def _keep(state: RecordDict, site: str, secrets: TwinSecrets | None) -> None:
    name = f"{TWINS}-{site}"
    if secrets is not None:
        state[name] = to_record(secrets)
    elif name in state:
        del state[name]


def _refusal(reason: str) -> FederationError:
    return FederationError(f"The comparison of patients was refused: {reason}.", public=f"the comparison of patients: {reason}")
