"""The tissue table says what is known of brain."""

import pytest

from simulation.phantom.tissue import SOLID, TISSUES


def test_t1_grows_with_field_through_both_tabled_values() -> None:
    white = TISSUES["white"]
    assert white.t1(1.5) == pytest.approx(white.t1_low)
    assert white.t1(3.0) == pytest.approx(white.t1_high)
    assert white.t1_low < white.t1(2.0) < white.t1_high


@pytest.mark.parametrize("field", [1.5, 3.0])
def test_order_of_t1_and_t2(field: float) -> None:
    by_t1 = [TISSUES[name].t1(field) for name in ("white", "deep-grey", "grey", "microcystic", "csf")]
    assert by_t1 == sorted(by_t1)
    by_t2 = [TISSUES[name].t2 for name in ("calcification", "white", "grey", "oedema", "necrosis", "microcystic", "csf")]
    assert by_t2 == sorted(by_t2)


def test_every_subtype_has_a_solid_tissue() -> None:
    assert {TISSUES[name].pd > 0 for name in SOLID.values()} == {True}
    assert len(SOLID) == 3
