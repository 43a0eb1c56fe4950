"""The stand-ins for torch's compiler, each time in a Python of its own: what was imported stays imported."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts torch anew

ROOT = Path(__file__).resolve().parents[3]
START = "import sys\nfrom client.predict.fast_import import without_compiler\nloaded = lambda: 'torch._dynamo' in sys.modules\n"


def said(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_timm_works_without_the_compiler_and_the_compiler_afterwards():
    code = """
with without_compiler():
    import timm
print(loaded())
import torch
model = timm.create_model("vit_tiny_patch16_224", img_size=32, dynamic_img_size=True, num_classes=0)
print(model(torch.zeros(1, 3, 32, 32)).shape[1], loaded())
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item(), torch._dynamo.__name__, loaded())
"""
    assert said(code) == ["False", "192", "False", "2.0", "torch._dynamo", "True"]


def test_asked_for_more_they_step_aside():
    code = """
with without_compiler():
    from torch._dynamo import config, disable
    from torch._dynamo.utils import is_compile_supported
print(type(config).__name__, loaded(), is_compile_supported("cpu") in (True, False), hasattr(disable, "__code__"))
"""
    assert said(code)[1:] == ["True", "True", "True"]
