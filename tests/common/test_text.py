"""Values that Python's own TOML reader gives back."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import toml_value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_toml(text: str) -> None:
    quoted = toml_value(text)
    assert tomllib.loads(f"x = {quoted}")["x"] == text
    assert '"' not in quoted[1:-1]


@pytest.mark.parametrize(
    "value", ['["a=\\"b\\""]', "C:\\sites\nnew", "Spitäler/日本 😀 \x01\x7f", 7, True, 0.5, 1e-7, ["a", "b"], []]
)
def test_values_survive_toml(value: Any) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value
