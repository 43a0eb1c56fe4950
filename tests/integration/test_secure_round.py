"""Sites and server of a secure round together, with real keys: the sum is right, drop-outs are survived, lies are refused."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import RecordDict
from flwr.common.secure_aggregation.crypto.shamir import create_shares

from client.round.secure_aggregation import SiteSecrets, begin, mask, open_ciphertexts, remember, require_new, share, unmask
from common.config.run import config_from_table
from common.errors import FederationError
from common.messages.secure_aggregation import AdvertiseKeys, MaskedInput, Unmask
from common.secure.fixed_point import FixedPoint, Values
from server.strategy.secure_aggregation import SecureRound

LENGTH, SITES, THRESHOLD = 500, 8, 5
REQUEST = bytes(32)
CONFIG = config_from_table({"secure": {"enabled": True, "threshold": 0.6, "max_weight": 200.0}})


def updates(sites: int = SITES) -> dict[int, tuple[Values, float]]:
    generator = np.random.default_rng(0)
    return {seat: (generator.normal(0, 0.01, LENGTH), float(generator.integers(5, 200))) for seat in range(1, sites + 1)}


def mean(of: dict[int, tuple[Values, float]]) -> Values:
    """FedAvg, as it would be in the clear."""
    return np.asarray(sum(weight * update for update, weight in of.values()) / sum(weight for _, weight in of.values()))


class Play:
    """A round in this process; `gone` says in which stage a site is lost (before it answers that stage)."""

    def __init__(self, gone: dict[int, str], sites: int = SITES, threshold: int = THRESHOLD) -> None:
        self.gone, self.data = gone, updates(sites)
        self.round = SecureRound(sites, threshold, LENGTH, FixedPoint.for_sites(sites, 1.0, 200.0), REQUEST)
        self.secrets: dict[int, SiteSecrets] = {}
        self.masked: dict[int, np.ndarray] = {}

    def there(self, stage: str) -> Iterator[int]:
        stages = ("keys", "shares", "masked", "unmask")
        return (
            seat
            for seat in self.data
            if stages.index(self.gone.get(seat, "unmask")) > stages.index(stage) or seat not in self.gone
        )

    def upto_masked(self) -> None:
        for seat in self.there("keys"):
            self.secrets[seat], told = begin(self.round.keys_for(seat), CONFIG)
            self.round.take_keys(seat, told)
        for seat in self.there("shares"):
            self.secrets[seat], shares = share(self.round.peers_for(seat), self.secrets[seat])
            self.round.take_shares(seat, shares)
        for seat in self.there("masked"):
            self.secrets[seat] = open_ciphertexts(self.round.ciphertexts_for(seat), self.secrets[seat])
            self.masked[seat] = mask(self.secrets[seat], CONFIG, *self.data[seat])
            self.round.take_masked(seat, self.masked[seat])

    def result(self) -> tuple[Values, float]:
        self.upto_masked()
        for seat in self.there("unmask"):
            self.round.take_unmask(seat, unmask(self.round.unmask_for(seat), self.secrets[seat]))
        return self.round.result()


@pytest.mark.parametrize(
    "gone",
    [
        {},
        {3: "keys"},
        {1: "masked", 8: "masked"},
        {2: "unmask", 5: "unmask"},
        {1: "keys", 4: "masked", 7: "unmask"},
        {4: "masked", 7: "masked", 8: "masked"},
    ],
    ids=str,
)
def test_the_sum_is_that_of_the_plain_mean_whoever_drops_out_and_when(gone: dict[int, str]) -> None:
    play = Play(gone)
    found, weight = play.result()
    summed = {seat: data for seat, data in play.data.items() if gone.get(seat, "unmask") == "unmask"}
    expected = mean(summed)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    assert weight == pytest.approx(sum(w for _, w in summed.values()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sites", [2, 3, 30])
def test_any_number_of_sites(sites: int) -> None:
    play = Play({}, sites, max(2, -(-6 * sites // 10)))
    found, _ = play.result()
    expected = mean(play.data)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


def test_what_the_server_sees_of_one_site_is_not_its_update() -> None:
    """Neither alone nor with all that the protocol ends with: without the seed's shares, the vector is a uniform one."""
    play = Play({})
    play.upto_masked()
    plain = FixedPoint.for_sites(SITES, 1.0, 200.0).encode(*play.data[1])
    seen = play.masked[1].astype(np.float64)
    assert abs(np.corrcoef(seen, plain.astype(np.float64))[0, 1]) < 0.2
    assert 0.4 < seen.mean() / 2**32 < 0.6
    assert seen[0] != plain[0]  # the weight is hidden too


def test_too_few_left_is_a_clean_failure_at_the_sites_and_at_the_server() -> None:
    play = Play({1: "masked", 2: "masked", 3: "masked", 4: "masked"})
    play.upto_masked()
    with pytest.raises(FederationError, match="4 sites survived, 5 are needed"):
        unmask(play.round.unmask_for(5), play.secrets[5])
    play = Play(dict.fromkeys((1, 2, 3, 4), "unmask"))
    with pytest.raises(FederationError, match="are inconsistent"):
        play.result()


def test_a_server_that_would_have_both_mask_and_key_of_a_site_is_refused() -> None:
    play = Play({})
    play.upto_masked()
    honest, mine = play.round.unmask_for(1), play.secrets[1]
    for survivors, dropped in (
        (honest.survivors, (2,)),  # 2 is asked for as both
        (honest.survivors[1:], (1,)),  # the asked one itself as dropped, though it has sent
        (honest.survivors[:-1], ()),  # one is left out
        ((*honest.survivors, 9), ()),  # one that nobody knows
        ((1, 2, 3, 4), (5, 6, 7, 8)),  # fewer than the threshold
    ):
        with pytest.raises(FederationError, match="Secure aggregation refused"):
            unmask(Unmask(honest.session, survivors, dropped), mine)
    unmask(honest, mine)


def test_stages_out_of_turn_or_of_another_round_are_refused() -> None:
    play, other = Play({}), Play({})
    play.upto_masked()
    other.upto_masked()
    with pytest.raises(FederationError, match="another round, or out of turn"):
        unmask(other.round.unmask_for(1), play.secrets[1])
    with pytest.raises(FederationError, match="another round, or out of turn"):
        open_ciphertexts(play.round.ciphertexts_for(1), play.secrets[1])  # a second time


@pytest.mark.parametrize(("sites", "threshold"), [(8, 4), (8, 9), (1, 1), (10, 5), (8, 0)])
def test_a_site_goes_along_with_a_majority_only(sites: int, threshold: int) -> None:
    with pytest.raises(FederationError, match="no majority"):
        begin(AdvertiseKeys("s", 1, sites, threshold, REQUEST), CONFIG)


def test_a_site_holds_the_server_to_the_runs_own_threshold() -> None:
    config = config_from_table({"secure": {"enabled": True, "threshold": 0.9}})
    with pytest.raises(FederationError, match=r"secure\.threshold = 0\.9"):
        begin(AdvertiseKeys("s", 1, 10, 8, REQUEST), config)
    begin(AdvertiseKeys("s", 1, 10, 9, REQUEST), config)


def test_keys_that_were_exchanged_repeated_or_left_out_are_refused() -> None:
    play = Play({})
    for seat in play.data:
        play.secrets[seat], told = begin(play.round.keys_for(seat), CONFIG)
        play.round.take_keys(seat, told)
    asked = play.round.peers_for(1)
    swapped = (asked.mask_keys[1], asked.mask_keys[0], *asked.mask_keys[2:])
    for changed in (
        replace(asked, mask_keys=swapped),
        replace(asked, mask_keys=(*asked.mask_keys[:-1], asked.mask_keys[0])),
        replace(asked, seats=(*asked.seats[:-1], 1)),
        replace(asked, seats=asked.seats[1:], mask_keys=asked.mask_keys[1:], letter_keys=asked.letter_keys[1:]),
        replace(asked, seats=asked.seats[:4], mask_keys=asked.mask_keys[:4], letter_keys=asked.letter_keys[:4]),
    ):
        with pytest.raises(FederationError, match="Secure aggregation refused"):
            share(changed, play.secrets[1])


def test_ciphertexts_for_another_or_from_another_or_damaged_are_refused() -> None:
    play = Play({8: "masked"})
    play.upto_masked()
    mine = replace(play.secrets[1], stage="shares")
    asked = play.round.ciphertexts_for(1)
    to_two = play.round.ciphertexts_for(2)
    for changed in (
        replace(asked, letters=to_two.letters),  # encrypted for site 2
        replace(asked, letters=(asked.letters[1], asked.letters[0], *asked.letters[2:])),  # senders exchanged
        replace(asked, letters=(asked.letters[0][:-4] + b"AAAA", *asked.letters[1:])),
        replace(asked, letters=(b"", *asked.letters[1:])),
        replace(asked, seats=asked.seats[:3], letters=asked.letters[:3]),  # too few
    ):
        with pytest.raises(FederationError, match="Secure aggregation refused"):
            open_ciphertexts(changed, mine)
    open_ciphertexts(asked, mine)


def unmasked_with(play: Play, spoil: dict[int, int]) -> None:
    """Everybody's shares, of which some sites' are spoilt: `spoil` says whose first so many seed shares are wrong."""
    for seat in play.masked:
        told = unmask(play.round.unmask_for(seat), play.secrets[seat])
        bad = tuple(bytes(len(share) - 20) + share[-20:] for share in told.seed_shares[: spoil.get(seat, 0)])
        play.round.take_unmask(seat, replace(told, seed_shares=(*bad, *told.seed_shares[len(bad) :])))


def test_wrong_shares_are_left_out_as_long_as_enough_are_right() -> None:
    play = Play({4: "masked"})
    play.upto_masked()
    unmasked_with(play, {2: 3, 5: 7})
    found, _ = play.round.result()
    expected = mean({seat: data for seat, data in play.data.items() if seat != 4})
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


def test_too_many_wrong_shares_are_noticed_and_not_averaged() -> None:
    play = Play({4: "masked"})
    play.upto_masked()
    unmasked_with(play, {1: 1, 2: 1, 3: 1})
    with pytest.raises(FederationError, match="are inconsistent"):
        play.round.result()


def test_a_seed_of_another_length_is_no_crash() -> None:
    """A hostile site may share 16 bytes, and tell their true hash."""
    play = Play({})
    play.upto_masked()
    play.round.seed_hashes[2] = hashlib.sha256(bytes(16)).digest()
    wrong = create_shares(bytes(16), THRESHOLD, SITES)
    for i, seat in enumerate(play.masked):
        told = unmask(play.round.unmask_for(seat), play.secrets[seat])
        play.round.take_unmask(seat, replace(told, seed_shares=(told.seed_shares[0], wrong[i], *told.seed_shares[2:])))
    with pytest.raises(FederationError, match="are inconsistent"):
        play.round.result()


def test_the_server_refuses_what_is_no_key_or_anothers_key() -> None:
    play = Play({})
    _, told = begin(play.round.keys_for(1), CONFIG)
    _, other = begin(play.round.keys_for(2), CONFIG)
    play.round.take_keys(1, told)
    ed25519 = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for bad in (
        replace(other, mask_key=b"no key"),
        replace(other, letter_key=b""),
        replace(other, mask_key=told.letter_key),
        replace(other, mask_key=other.letter_key),
        replace(other, letter_key=ed25519),
    ):
        with pytest.raises(FederationError, match="public keys"):
            play.round.take_keys(2, bad)
    play.round.take_keys(2, other)


def test_a_site_trains_against_keys_only() -> None:
    play = Play({})
    for seat in play.data:
        play.secrets[seat], told = begin(play.round.keys_for(seat), CONFIG)
        play.round.take_keys(seat, told)
    asked = play.round.peers_for(1)
    with pytest.raises(FederationError, match="seat 8 sent no valid public key"):
        share(replace(asked, mask_keys=(*asked.mask_keys[:-1], b"x")), play.secrets[1])


@pytest.mark.parametrize("lie", ["fewer sites", "another request", "another key"])
def test_a_server_that_tells_one_site_another_story_gets_no_vector_of_it(lie: str) -> None:
    """Told that there are two sites only, or asked to train something else than the others, it would stand alone in its sum."""
    play = Play({})
    for seat in play.data:
        asked = play.round.keys_for(seat)
        if seat == 1 and lie == "fewer sites":
            asked = replace(asked, sites=2, threshold=2)
        if seat == 1 and lie == "another request":
            asked = replace(asked, request=b"1" * 32)
        play.secrets[seat], told = begin(asked, CONFIG)
        play.round.take_keys(seat, told)
    other_keys = begin(play.round.keys_for(8), CONFIG)[1]
    for seat in play.data:
        peers = play.round.peers_for(seat)
        if seat == 1 and lie == "fewer sites":
            peers = replace(peers, seats=peers.seats[:2], mask_keys=peers.mask_keys[:2], letter_keys=peers.letter_keys[:2])
        if seat == 1 and lie == "another key":
            peers = replace(peers, mask_keys=(*peers.mask_keys[:-1], other_keys.mask_key))
        play.secrets[seat], shares = share(peers, play.secrets[seat])
        play.round.ciphertexts[seat] = dict(zip(shares.seats, shares.letters, strict=True))
    seats = (2,) if lie == "fewer sites" else tuple(range(2, 9))
    ciphertexts = MaskedInput(play.round.session, seats, tuple(play.round.ciphertexts[seat][1] for seat in seats))
    with pytest.raises(FederationError, match="received another list of sites and keys"):
        open_ciphertexts(ciphertexts, play.secrets[1])


def test_a_round_that_was_unmasked_is_not_begun_again() -> None:
    """The difference of two sums of one round is one site's update."""
    state = RecordDict()
    require_new(state, "du", REQUEST)
    remember(state, "du", REQUEST)
    require_new(state, "du", b"1" * 32)
    require_new(state, "cs", REQUEST)
    with pytest.raises(FederationError, match="unmasked before"):
        require_new(state, "du", REQUEST)
