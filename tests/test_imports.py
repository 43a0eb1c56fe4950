"""What `lint-imports` cannot say of the two Flower apps."""

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("app", ["client/app.py", "server/app.py"])
def test_the_flower_apps_are_wiring_only(app: str) -> None:
    assert len((CHECKOUT / app).read_text().splitlines()) < 80
