"""Damaged input for whatever reads files or messages: Hypothesis chooses a seed, plain code makes the input of it.

`nothing_unpickled` belongs around every such test.
"""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# Without the phase that explains failures: to do so it traces every line, which takes a hundred times as long.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
MANY = settings(
    max_examples=int(os.environ.get("FEDMRI_EXAMPLES", "500")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=PHASES,
)
PIECES = (b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"NaN", b"\n", b"\x00", b"\xff", b"null", b"", b"-1")
WORDS = ("", "a", "../..", "\x00", "\ud800", "é", "x" * 400, "north", "nan", "-1", "/", "+")
NUMBERS = (0, 1, -1, 2, 3, 10**6, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"))

Made = TypeVar("Made")


def made(make: Callable[[Random], Made]) -> st.SearchStrategy[Made]:
    """Inputs that `make` builds of a random generator."""
    return st.integers(0, 2**64 - 1).map(lambda seed: make(Random(seed)))


def mutated(random: Random, whole: bytes, pieces: tuple[bytes, ...] = PIECES) -> bytes:
    """A few bytes changed, cut out, put in; lines in another order; or bytes of no sense at all."""
    if not random.randrange(20):
        return random.randbytes(random.randrange(60))
    data = bytearray(whole)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(data))
        new = random.choice(pieces) if random.random() < 0.4 else random.randbytes(random.randrange(4))
        data[at : at + random.choice((0, 1, 1, 4, 30))] = new
    if random.random() < 0.2:
        lines = bytes(data).split(b"\n")
        random.shuffle(lines)
        return b"\n".join(lines)
    return bytes(data)


def tree(random: Random, depth: int = 3) -> Any:
    """Any value that JSON has, and a few that it has not."""
    kind = random.randrange(8 if depth else 5)
    if kind < 5:
        return random.choice((None, True, False, random.choice(WORDS), random.choice(NUMBERS)))
    if kind == 5:
        return [tree(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice(WORDS): tree(random, depth - 1) for _ in range(random.randrange(4))}


def replaced(random: Random, table: Any) -> Any:
    """The table with some values replaced or taken out, at any depth."""
    table = json.loads(json.dumps(table))
    for _ in range(random.randint(1, 3)):
        place = table
        while place:
            key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key] and random.random() < 0.6:
                place = place[key]
                continue
            if random.random() < 0.2:
                del place[key]
            else:
                place[key] = tree(random)
            break
    return table


def damaged_json(random: Random, table: Any) -> bytes:
    """A JSON file with wrong bytes, or with wrong values."""
    if random.random() < 0.5:
        return mutated(random, json.dumps(table).encode())
    return json.dumps(replaced(random, table) if random.random() < 0.9 else tree(random)).encode()


@contextmanager
def nothing_unpickled() -> Iterator[None]:
    """Fails the test that unpickles anything."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
            patch.setattr(pickle, name, refuse)
        yield
