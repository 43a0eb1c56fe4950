"""`fedmri-server plan`: what it prints and how it exits."""

import json

import pytest

from server.cli.main import main


def plan(arguments: str) -> int:
    return main(["plan", *arguments.split()])


def test_the_epsilon_of_a_noise(capsys) -> None:
    assert plan("--noise-multiplier 1.0 --sample-rate 0.08 --steps 400 --delta 1e-3 --json") == 0
    assert json.loads(capsys.readouterr().out)["epsilon"] == pytest.approx(8.2, abs=0.05)


@pytest.mark.slow
def test_the_noise_for_an_epsilon_and_back(capsys) -> None:
    assert plan("--epsilon 8 --patients 150 --batch 12 --rounds 20 --steps-per-round 20 --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sample_rate"], told["steps"]) == (0.08, 400)
    assert told["noise_multiplier"] == pytest.approx(1.015, rel=0.01)
    assert told["epsilon"] <= 8


@pytest.mark.parametrize("noise", [0.94162, 0.9417, 26.8511, 9999.5, 3.3e-4])
def test_the_shown_noise_is_enough_for_who_copies_it(capsys, monkeypatch, noise: float) -> None:
    """Rounded to the nearest, it may be a little less than was found: the last round would not fit a budget of this epsilon."""
    monkeypatch.setattr("server.cli.plan.noise_for", lambda *_: noise)
    monkeypatch.setattr("server.cli.plan.epsilon_of", lambda history, _: history[0].noise_multiplier)
    assert plan("--epsilon 8 --sample-rate 0.1 --steps 5") == 0
    shown = float(capsys.readouterr().out.split("Noise multiplier ")[1].split(",")[0])
    assert noise <= shown <= noise * 1.0011


def test_people_are_told_in_one_line(capsys) -> None:
    assert plan("--noise-multiplier 0 --sample-rate 0.5 --steps 1") == 0
    assert "no bound at all per patient" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--epsilon 8 --steps 10", "--sample-rate"),
        ("--epsilon 8 --sample-rate 0.1", "--steps"),
        ("--epsilon 8 --sample-rate 1.5 --steps 10", "sample rate"),
        ("--epsilon 8 --patients 10 --batch 20 --steps 10", "sample rate"),
        ("--epsilon -1 --sample-rate 0.1 --steps 10", "--epsilon"),
        ("--epsilon inf --sample-rate 0.1 --steps 10", "--epsilon"),
        ("--epsilon 8 --sample-rate 0.1 --steps 10 --delta 2", "--delta"),
        ("--epsilon 8 --sample-rate 0.1 --steps -5", "steps"),
        ("--epsilon 8 --sample-rate 0.1 --steps 100000000000", "1 to 1000000"),
        ("--noise-multiplier nan --sample-rate 0.1 --steps 5", "--noise-multiplier"),
        ("--epsilon 0.00001 --sample-rate 0.5 --steps 5", "--epsilon"),
    ],
)
def test_wrong_use_is_named(capsys, arguments: str, named: str) -> None:
    assert plan(arguments) == 2
    assert named in capsys.readouterr().err
