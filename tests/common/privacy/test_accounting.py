"""Against dp-accounting's PLD accountant (Google's, another method and code), and against closed forms."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy.accounting import (
    LARGEST_NOISE,
    LOOSE,
    SMALLEST_NOISE,
    TOLERANCE,
    epsilon_of,
    last_true,
    least_noise,
    noise_for,
    steps_within,
)
from common.privacy.charge import Charge

GRID = [
    pytest.param(noise, rate, steps, delta, marks=pytest.mark.thorough if delta < 1e-4 else ())
    for noise, rate, steps in (
        (0.6, 0.02, 50),
        (0.8, 0.05, 100),
        (1.0, 0.08, 400),
        (1.0, 0.01, 1000),
        (1.5, 0.08, 400),
        (1.2, 0.25, 20),
        (2.0, 0.5, 10),
        (2.5, 0.08, 400),
        (4.3, 0.1, 1000),
        (10.0, 1.0, 30),
    )
    for delta in (1e-3, 1e-5)
]


def pld_epsilon(history: list[tuple[float, float, int]], delta: float) -> float:
    pld = pytest.importorskip("dp_accounting.pld", reason="dp-accounting is not installed: make setup installs it")
    from dp_accounting import dp_event

    accountant = pld.PLDAccountant()
    for noise, rate, steps in history:
        accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), GRID)
def test_epsilon_is_that_of_privacy_loss_distributions(noise: float, rate: float, steps: int, delta: float) -> None:
    assert epsilon_of([Charge(noise, rate, steps)], delta) == pytest.approx(pld_epsilon([(noise, rate, steps)], delta), abs=0.05)


@pytest.mark.slow
def test_a_mixed_history_is_composed_whole() -> None:
    history = [(1.0, 0.08, 100), (1.5, 0.05, 200), (2.0, 0.2, 10)]
    charges = [Charge(*item) for item in history]
    whole = epsilon_of(charges, 1e-3)
    assert whole == pytest.approx(pld_epsilon(history, 1e-3), abs=0.05)
    assert whole < sum(epsilon_of([charge], 1e-3) for charge in charges)
    assert epsilon_of(reversed(charges), 1e-3) == whole


def test_the_published_setting() -> None:
    assert epsilon_of([Charge(1.0, 0.08, 400)], 1e-3) == pytest.approx(8.2, abs=0.05)
    assert epsilon_of([Charge(1.0, 0.08, 20)] * 20, 1e-3) == epsilon_of([Charge(1.0, 0.08, 400)], 1e-3)


def test_one_gaussian_step_against_its_closed_form() -> None:
    """Balle and Wang, ICML 2018, theorem 8: delta of one Gaussian mechanism of sensitivity 1."""
    epsilon = epsilon_of([Charge(1.3, 1.0, 1)], 1e-4)

    def normal(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2

    delta = normal(0.5 / 1.3 - epsilon * 1.3) - math.exp(epsilon) * normal(-0.5 / 1.3 - epsilon * 1.3)
    assert delta <= 1e-4
    assert delta == pytest.approx(1e-4, rel=0.1)


def test_the_ends() -> None:
    assert epsilon_of([], 1e-3) == 0
    assert epsilon_of([Charge(1.0, 0.0, 100), Charge(1.0, 0.5, 0)], 1e-3) == 0
    assert epsilon_of([Charge(0.0, 0.1, 1)], 1e-3) == math.inf
    assert epsilon_of([Charge(0.05, 0.5, 1000)], 1e-3) > LOOSE


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.floats(0.7, 5), st.floats(0.01, 0.3), st.integers(1, 100))
def test_more_steps_cost_more_and_more_noise_costs_less(noise: float, rate: float, steps: int) -> None:
    slack = 0.02  # the accountant's own error
    base = epsilon_of([Charge(noise, rate, steps)], 1e-3)
    assert epsilon_of([Charge(noise, rate, steps + 50)], 1e-3) >= base - slack
    assert epsilon_of([Charge(noise * 1.5, rate, steps)], 1e-3) <= base + slack


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "noise"), [(1, 4.28), (8, 1.015)])
def test_the_noise_for_an_epsilon(epsilon: float, noise: float) -> None:
    found = noise_for(epsilon, 1e-3, 0.08, 400)
    assert found == pytest.approx(noise, rel=0.01)
    assert epsilon_of([Charge(found, 0.08, 400)], 1e-3) <= epsilon


def test_no_noise_helps_where_all_is_spent() -> None:
    with pytest.raises(ValueError, match="No noise"):
        noise_for(1.0, 1e-3, 0.08, 10, spent=[Charge(1.0, 0.08, 400)])


@pytest.mark.slow
def test_steps_within_is_the_last_that_fits() -> None:
    one, spent = Charge(1.5, 0.1, 100), [Charge(1.0, 0.08, 50)]
    times = steps_within(6.0, 1e-3, one, spent)
    assert epsilon_of([*spent, Charge(1.5, 0.1, 100 * times)], 1e-3) <= 6.0
    assert epsilon_of([*spent, Charge(1.5, 0.1, 100 * (times + 1))], 1e-3) > 6.0


@given(st.integers(0, 300), st.integers(1, 200), st.integers(-5, 400))
def test_bisection_against_counting(true_until: int, most: int, guess: int) -> None:
    asked: list[int] = []
    assert last_true(lambda n: asked.append(n) or n <= true_until, most, guess) == min(true_until, most)
    assert all(1 <= n <= most for n in asked)
    assert len(asked) == len(set(asked))


@given(st.floats(0.05, 50.0), st.floats(0.3, 3.0), st.floats(1e-3, 1e3))
def test_the_least_noise_is_found_from_any_guess_in_few_questions(epsilon: float, power: float, guess: float) -> None:
    """Of a curve that is steeper where there is little noise, as the accountant's."""
    asked: list[float] = []

    def curve(noise: float) -> float:
        asked.append(noise)
        return 3 / noise**power + 0.5 / noise**2

    if curve(LARGEST_NOISE) > epsilon:
        with pytest.raises(ValueError, match="No noise up to"):
            least_noise(curve, epsilon, guess)
        return
    asked.clear()
    found = least_noise(curve, epsilon, guess)
    assert curve(found) <= epsilon < curve(found * (1 - 1.01 * TOLERANCE))
    asked.clear()
    least_noise(curve, epsilon, found * 1.05)  # what the central limit is off by
    assert len(asked) <= 12


@pytest.mark.parametrize("guess", [1e-300, 1.0, 1e9])
def test_the_search_ends_where_any_noise_is_enough(guess: float) -> None:
    asked: list[float] = []

    def curve(noise: float) -> float:
        asked.append(noise)
        assert len(asked) < 100
        return 1.0 if noise else math.inf

    assert least_noise(curve, 2.0, guess) <= SMALLEST_NOISE


def test_noise_whose_square_is_no_number_bounds_nothing() -> None:
    assert epsilon_of([Charge(1e-200, 0.1, 10)], 1e-3) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("cases", [2, 3])
@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.5, 0.1, 20), (1.0147, 0.08, 400), (4.0, 0.2, 50)])
def test_the_bound_of_a_group_holds_against_the_mixture_of_its_cases(cases: int, noise: float, rate: float, steps: int) -> None:
    """A person in several cases, each drawn by itself: dp-accounting's mixture of Gaussians is the truth."""
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    chances = [math.comb(cases, k) * rate**k * (1 - rate) ** (cases - k) for k in range(cases + 1)]
    one = pld.from_mixture_gaussian_mechanism(noise, list(range(cases + 1)), chances, value_discretization_interval=1e-3)
    truth = one.self_compose(steps).get_epsilon_for_delta(1e-3)
    bound = epsilon_of([Charge(noise, rate, steps).of_group(cases)], 1e-3)
    assert truth <= bound + 0.01
    assert bound <= 2 * truth


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 30.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.08, 400), (0.5, 20), (1.0, 10)])
def test_the_noise_of_a_plan_keeps_its_epsilon_by_another_accountant_too(epsilon: float, rate: float, steps: int) -> None:
    noise = noise_for(epsilon, 1e-3, rate, steps)
    truth = pld_epsilon([(noise, rate, steps)], 1e-3)
    assert truth <= epsilon
    assert truth == pytest.approx(epsilon, abs=0.03 + 0.005 * epsilon)


@pytest.mark.parametrize("wrong", [(-1.0, 0.1, 1), (math.nan, 0.1, 1), (1.0, 1.1, 1), (1.0, -0.1, 1), (1.0, 0.1, -1)])
def test_impossible_charges_are_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="Expected noise_multiplier"):
        Charge(*wrong)
