"""Random numbers: one seed per run, and the state of the generators."""

import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

# cuBLAS is deterministic with this buffer only, and reads the variable when it starts.
_CUBLAS_WORKSPACE = ":4096:8"


def seed_run(seed: int) -> int:
    """Seed every generator of this process, which draws from the seed of the run plus its rank.

    Args:
        seed: seed of the run, the same in all processes; a negative one asks for a new seed.

    Returns:
        The seed of the run.
    """
    if seed < 0:
        seed = comm.shared_random_seed()
    seed_all_rng(seed + comm.get_rank())
    return seed


def make_deterministic() -> None:
    """Choose operations that return the same bits twice; torch warns if there are none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _CUBLAS_WORKSPACE)
    # Once per operation, not once per call.
    warnings.filterwarnings("once", message=".* does not have a deterministic implementation")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def rng_state() -> dict[str, Any]:
    """Return the state of the generators of Python, numpy and torch, as plain values."""
    array: Any = np.random.get_state()
    name, keys, *rest = array
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the result of `rng_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the state of all generators at the end of the block."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


@contextmanager
def seeded(key: Sequence[int]) -> Iterator[None]:
    """Seed the generators of the CPU by a key inside the block, and restore them at its end.

    Args:
        key: non-negative numbers.
    """
    words = [int(word) for word in np.random.SeedSequence(key).generate_state(3)]
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(words[0])
    np.random.seed(words[1])
    torch.default_generator.manual_seed(words[2])  # torch.manual_seed would reach the GPU too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(tensor)
