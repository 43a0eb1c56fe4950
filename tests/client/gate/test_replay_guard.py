"""What a site has noted about its hold-out before the task had a section of its own still holds."""

from pathlib import Path

import pytest

from client.gate.replay_guard import SPLIT_NAME, require_one_split
from client.policy import PolicyError
from common.config.run import RunConfig, config_from_table

NOTED = "acb16bebd8d663eaad1a7302a734f21c0965591ab583700d899ecd0bc928fa31"  # by 2a60dec, of the default configuration


def test_a_split_that_was_noted_earlier_is_known(tmp_path: Path) -> None:
    (tmp_path / SPLIT_NAME).write_text(f"{NOTED}\n")
    require_one_split(tmp_path, RunConfig())
    for other in ({"task": {"label": "grade"}}, {"task": {"classes": ["a", "b"]}}, {"data": {"modalities": ["t1"]}}):
        with pytest.raises(PolicyError, match="another"):
            require_one_split(tmp_path, config_from_table(other))
