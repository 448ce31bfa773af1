"""Compile every kernel for two generations of GPUs. Run by `test_triton.py`; needs no GPU."""

import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from brloss_d2.ops.triton import cells as cells_triton
from brloss_d2.ops.triton import ramp as ramp_triton
from brloss_d2.projects.co_detr.layers import ms_deform_triton

_SAMPLING = dict.fromkeys(["value", "locations", "weights"], "*f") | {"levels": "*i32"}
_SAMPLED = dict.fromkeys(["cells", "queries", "heads", "channels"], "i32")
_BLOCKS = {"LEVELS": 4, "POINTS": 4, "QUERIES": 32, "CHANNELS": 32}

KERNELS = {
    "count": (
        cells_triton._count,
        {"edges": "*fp64", "scale": "*fp64", "labels": "*i64"}
        | {"logits": "*f", "cell_of": "*i32", "totals": "*i64", "last_sums": "*fp64"}
        | {"size": "i32", "cells": "i32", "copies": "i32"},
        {"SEARCH_STEPS": 5, "BLOCK": 1024},
    ),
    # Triton makes constants of arguments that are 1.
    "count in one cell": (
        cells_triton._count,
        {"edges": "*fp64", "scale": "*fp64", "labels": "*i8"}
        | {"logits": "*f", "cell_of": "*i32", "totals": "*i64", "last_sums": "*fp64"}
        | {"size": "i64"},
        {"cells": 1, "copies": 1, "SEARCH_STEPS": 0, "BLOCK": 1024},
    ),
    "write": (
        cells_triton._write,
        dict.fromkeys(["edges", "level", "slope"], "*fp64")
        | {"logits": "*f", "gradient": "*f", "cell_of": "*i32", "size": "i32"},
        {"SLOPED": True, "BLOCK": 1024},
    ),
    "sum_pairs": (
        ramp_triton._sum_pairs,
        dict.fromkeys(["thresholds", "values", "weights", "partial"], "*fp64")
        | {"prefix": "*i64", "num_thresholds": "i32", "num_values": "i32", "rows": "i32"},
        {"DELTA": 0.3, "THRESHOLDS": 64, "VALUES": 32, "TILES": 8},
    ),
    "sum_pairs of one row, compared exactly": (
        ramp_triton._sum_pairs,
        dict.fromkeys(["thresholds", "values", "weights", "partial"], "*fp64")
        | {"prefix": "*i64", "num_thresholds": "i32", "num_values": "i32"},
        {"rows": 1, "DELTA": 0.0, "THRESHOLDS": 64, "VALUES": 32, "TILES": 1},
    ),
    "sample deformably": (ms_deform_triton._sample, _SAMPLING | {"out": "*f"} | _SAMPLED, _BLOCKS),
    "sample deformably with one head": (
        ms_deform_triton._sample,
        {k: t for k, t in (_SAMPLING | {"out": "*f"} | _SAMPLED).items() if k != "heads"},
        _BLOCKS | {"heads": 1},
    ),
    "differentiate deformable sampling": (
        ms_deform_triton._differentiate,
        dict.fromkeys(["upstream", "by_value", "by_location", "by_weight"], "*f")
        | _SAMPLING
        | _SAMPLED,
        _BLOCKS,
    ),
}


def compile_kernel(name: str, real: str, capability: int) -> None:
    kernel, types, constants = KERNELS[name]
    names = kernel.arg_names
    types = {n: f"*{real}" if t == "*f" else t for n, t in types.items()}
    signature = {n: types.get(n, "constexpr") for n in names}
    source = ASTSource(kernel, signature, {(names.index(n),): v for n, v in constants.items()})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"], name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache
        for kernel_name in KERNELS:
            for real in ("fp32", "fp64"):
                for capability in (80, 90):
                    compile_kernel(kernel_name, real, capability)
