"""Deformable sampling with Triton, interpreted and on a GPU; tests/ops compiles its kernels."""

import pytest
import torch

from tests.ops.test_triton import run

CASES = "tests/projects/co_detr/ms_deform_triton_cases.py"


def test_kernels_interpreted():
    run("-m", "pytest", CASES, TRITON_INTERPRET="1")


def test_kernels_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    run("-m", "pytest", CASES)
