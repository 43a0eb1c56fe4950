"""No process that starts programs lets gRPC meddle with its forks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
STARTS_PROGRAMS = (
    "server.cli.deployment",
    "server.deployment.service",
    "client.deployment.service",
    "client.gate.gate",
)
SCRIPT = """
import importlib, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print("grpc", os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import grpc
"""


@pytest.mark.parametrize("module", STARTS_PROGRAMS)
def test_grpc_is_told_before_it_is_imported(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    command = [sys.executable, "-c", SCRIPT, module]
    said = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.split("\n")[0] == "grpc false"
