"""What `make setup` does to Flower's command, tried with a command of our own that stands in Flower's place."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from common.errors import ConfigError
from simulation.environment import BEFORE, EARLIER, prepare_environment, set_for_flower

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = f"#!{sys.executable}\nimport re\nimport sys\n{BEFORE}if __name__ == '__main__':\n    sys.exit(app())\n"
FLOWER = """import os

SEEN_AT_IMPORT = os.environ.get("FLWR_TELEMETRY_ENABLED")


def app() -> None:
    print(SEEN_AT_IMPORT, os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"], os.environ["PATH"])
"""


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """An environment with Flower's command as pip writes it, and what an earlier `make setup` left."""
    (tmp_path / "flwr").write_text(COMMAND)
    (tmp_path / "flwr").chmod(0o755)
    (tmp_path / EARLIER).write_text("import os\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    return tmp_path


def test_flowers_command_sets_what_is_missing_before_flower_is_imported(places, tmp_path) -> None:
    assert prepare_environment() == places / "flwr"
    once = (places / "flwr").read_bytes()
    prepare_environment()
    assert (places / "flwr").read_bytes() == once
    assert not (places / EARLIER).exists()
    stand_in = tmp_path / "stand-in"
    (stand_in / "flwr" / "cli").mkdir(parents=True)
    for name, text in {"__init__.py": "", "cli/__init__.py": "", "cli/app.py": FLOWER}.items():
        (stand_in / "flwr" / name).write_text(text)
    path = os.pathsep.join([str(stand_in), str(CHECKOUT)])
    for own, expected in (({}, "0 1"), ({"FLWR_TELEMETRY_ENABLED": "1"}, "1 1")):  # what the user has set stays
        done = subprocess.run(
            [places / "flwr"],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path, **own},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split("/")[0].strip() == expected
        assert done.stdout.split()[-1] == os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])


def test_another_command_is_left_alone(places) -> None:
    (places / "flwr").write_text("#!/bin/sh\n")
    with pytest.raises(ConfigError, match="expected Flower's command"):
        prepare_environment()
    assert (places / "flwr").read_text() == "#!/bin/sh\n"


def test_a_path_that_has_the_programs_stays_as_it_is() -> None:
    scripts = sysconfig.get_path("scripts")
    variables = {"PATH": os.pathsep.join(["/bin", scripts])}
    set_for_flower(variables)
    assert variables["PATH"] == os.pathsep.join(["/bin", scripts])
