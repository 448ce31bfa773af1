"""The Triton back-end, in processes of its own: `triton_cases.py` says why."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*command: str, **variables: str) -> None:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, *command],
        env=environment | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.parametrize("cases", ["fused_cases", "triton_cases"])
def test_kernels_interpreted(cases):
    run("-m", "pytest", f"tests/ops/{cases}.py", TRITON_INTERPRET="1")


def test_kernels_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    run("-m", "pytest", "tests/ops/fused_cases.py", "tests/ops/triton_cases.py")


def test_kernels_compile_for_gpus():
    """The interpreter takes code that no compiler does; this needs the compiler, but no GPU."""
    run("tests/ops/compile_kernels.py")
