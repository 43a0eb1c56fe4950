"""The stand-ins for torch's compiler, each time in a Python of its own: what was imported stays imported."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts torch anew

ROOT = Path(__file__).resolve().parents[3]
START = """
import sys
from common.models.without_compiler import without_compiler
loaded = lambda: 'torch._dynamo' in sys.modules
"""


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


def test_an_optimizer_steps_without_the_compiler_to_the_same_values():
    code = """
import torch
def trained():
    weight = torch.nn.Parameter(torch.arange(4.0))
    for make in (torch.optim.AdamW, torch.optim.SGD):
        optimizer = make([weight], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (weight ** 3).sum().backward()
            optimizer.step()
    return weight.tolist()
with without_compiler():
    without = trained()
print(loaded(), trained() == without, loaded())
"""
    assert said(code) == ["False", "True", "True"]


def test_the_flower_apps_start_and_train_without_the_compiler_and_without_what_only_measures():
    code = """
import client.app
heavy = ("torch._dynamo", "torchmetrics", "matplotlib", "scipy.stats", "sklearn", "opacus")
print(*[name for name in heavy if name in sys.modules])
"""
    assert said(code) == []
