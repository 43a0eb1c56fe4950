"""`fedmri-server plan`: the noise of a differentially private run."""

import argparse
import json
import math

from rich.console import Console

from common.cli import add_debug
from common.errors import ConfigError
from common.privacy.accounting import epsilon_of, noise_for
from common.privacy.charge import Charge

MOST_STEPS = 1_000_000  # far more than any hospital takes; the search takes half a minute there, and for ever far above


def add_plan(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the parser."""
    text = (
        "The noise for an epsilon, or the epsilon of a noise. Give --sample-rate, or --patients and --batch of the smallest "
        "site; --steps of the whole run, or --rounds and --steps-per-round."
    )
    verb = verbs.add_parser("plan", help="plan a differentially private run", description=text)
    goal = verb.add_mutually_exclusive_group(required=True)
    goal.add_argument("--epsilon", type=float, help="to be kept: the least noise multiplier is found")
    goal.add_argument("--noise-multiplier", type=float, help="to be used: its epsilon is found")
    verb.add_argument("--delta", type=float, default=1e-3, help="default 1e-3; below one over the patients of a site")
    verb.add_argument("--sample-rate", type=float, help="chance of each patient to be in a step")
    verb.add_argument("--patients", type=int, help="of the smallest site")
    verb.add_argument("--batch", type=float, help="patients expected in a step")
    verb.add_argument("--steps", type=int, help="of the whole run, at one site")
    verb.add_argument("--rounds", type=int)
    verb.add_argument("--steps-per-round", type=int)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    rate, steps = _rate(arguments), _steps(arguments)
    _require("--delta", arguments.delta, 0 < arguments.delta < 1, "a number between 0 and 1")
    noise = arguments.noise_multiplier
    if noise is None:
        _require("--epsilon", arguments.epsilon, 0 < arguments.epsilon < math.inf, "a number above 0")
        try:
            with Console(stderr=True).status("Searching the noise"):
                noise = _rounded_up(noise_for(arguments.epsilon, arguments.delta, rate, steps))
        except ValueError as error:
            raise ConfigError(f"--epsilon {arguments.epsilon:g}: {error} Take fewer steps or a smaller sample rate.") from error
    _require("--noise-multiplier", noise, math.isfinite(noise) and noise >= 0, "a number of 0 or more")
    epsilon = epsilon_of([Charge(noise, rate, steps)], arguments.delta)
    result = {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": arguments.delta,
        "noise_multiplier": noise,
        "sample_rate": rate,
        "steps": steps,
        "unit": "patient",
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        said = f"epsilon {epsilon:.3f}" if math.isfinite(epsilon) else "no bound at all"
        given = f"Noise multiplier {noise:.4g}, sample rate {rate:.4g}, {steps} steps"
        Console().print(f"{given}: {said} per patient at delta {arguments.delta:g}.", highlight=False, soft_wrap=True)
    return 0


def _rounded_up(noise: float) -> float:
    """To the digits that are shown: who copies them must not exceed the epsilon that they asked for."""
    digit = 10.0 ** (math.floor(math.log10(noise)) - 3)
    return float(f"{math.ceil(noise / digit) * digit:.4g}")


def _rate(arguments: argparse.Namespace) -> float:
    """The chance of each patient to be in a step."""
    rate = arguments.sample_rate
    if rate is None:
        if not arguments.patients or arguments.batch is None:
            raise ConfigError("Expected --sample-rate, or --patients and --batch.")
        _require("--patients", arguments.patients, arguments.patients > 0, "a number above 0")
        rate = arguments.batch / arguments.patients
    _require("the sample rate", rate, 0 < rate <= 1, "a number above 0, at most 1")
    return float(rate)


def _steps(arguments: argparse.Namespace) -> int:
    """Steps at one site in the whole run."""
    steps = arguments.steps
    if steps is None:
        if not arguments.rounds or not arguments.steps_per_round:
            raise ConfigError("Expected --steps, or --rounds and --steps-per-round.")
        steps = arguments.rounds * arguments.steps_per_round
    _require("the number of steps", steps, 0 < steps <= MOST_STEPS, f"1 to {MOST_STEPS}")
    return int(steps)


def _require(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ConfigError(f"{name}: expected {expected}, got {value}.")
