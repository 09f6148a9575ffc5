"""The workaround for the torchao versions of peft and torchtune, and whether it is still needed."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import torch, peft
model = torch.nn.Sequential(torch.nn.Linear(4, 4))
peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"]))
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=300)


def test_without_the_workaround_an_adapter_cannot_be_applied():
    """When this fails, the workaround is no longer needed: remove gog_recipes.models.peft_compat."""
    assert "torchao" in run(PROGRAM).stderr


def test_with_the_workaround_an_adapter_can_be_applied():
    done = run("import gog_recipes.models.peft_compat\n" + PROGRAM)
    assert done.returncode == 0, done.stderr
