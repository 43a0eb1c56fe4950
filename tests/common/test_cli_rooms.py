"""Verbs of the programs are found wherever they lie, and wait for nothing that others load."""

import argparse
import subprocess
import sys
from types import ModuleType

import pytest

import client.cli.main
import server.cli.main
from common.cli import add_rooms


def verbs_of(program: ModuleType, argv: list[str]) -> set[str]:
    verbs = argparse.ArgumentParser().add_subparsers()
    add_rooms(verbs, program.ROOMS, argv)
    return set(verbs.choices)


@pytest.mark.parametrize("program", [client.cli.main, server.cli.main])
def test_every_verb_is_listed_with_the_room_that_adds_it(program: ModuleType) -> None:
    everything = verbs_of(program, ["--help"])
    for names in program.ROOMS.values():
        for name in names:
            assert verbs_of(program, [name]) == set(names)
    assert everything == {name for names in program.ROOMS.values() for name in names}
    assert verbs_of(program, ["no-such-verb"]) == verbs_of(program, []) == everything


@pytest.mark.parametrize("asked", [["--epsilon", "8"], ["--noise-multiplier", "1"]])
def test_a_plan_waits_neither_for_flower_nor_for_torch(asked: list[str]) -> None:
    program = "import sys; from server.cli.main import main; code = main(sys.argv[1:]); " + (
        "print([name for name in ('flwr', 'torch', 'nibabel', 'opacus') if name in sys.modules]); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "plan", *asked, "--sample-rate", "0.2", "--steps", "50"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.splitlines()[-1] == "[]"
    assert said.startswith("Noise multiplier ")


def test_the_accountants_alone_are_those_of_the_whole_library() -> None:
    """In one program: first without torch, then the library as it is."""
    program = (
        "from common.privacy.accounting import epsilon_of; from common.privacy.charge import Charge; "
        "history = [Charge(1.1, 0.1, 40), Charge(0.7, 0.3, 5)]; ours = epsilon_of(history, 1e-3); "
        "from opacus.accountants import PRVAccountant; theirs = PRVAccountant(); "
        "theirs.history = [(0.7, 0.3, 5), (1.1, 0.1, 40)]; print(ours, theirs.get_epsilon(1e-3)); "
        "import opacus; print(opacus.PrivacyEngine.__name__)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.splitlines()
    ours, theirs = map(float, said[0].split())
    assert ours == pytest.approx(theirs, abs=0.02)
    assert said[1] == "PrivacyEngine"


def test_threads_that_ask_for_the_accountants_at_once_all_get_them() -> None:
    program = (
        "import sys; from concurrent.futures import ThreadPoolExecutor as Threads; "
        "from common.privacy.accountants import accountants; "
        "asked = [pool.submit(accountants) for pool in [Threads(4)] for _ in range(4)]; "
        "print(len({one.result() for one in asked}), [name for name in sys.modules if name.startswith('opacus')])"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.strip() == "1 []"
