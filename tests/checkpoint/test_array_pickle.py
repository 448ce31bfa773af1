"""Detectron2's .pkl files load; those that would run code do not."""

import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.errors import InputError


class Attack:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_weights_of_the_model_zoo(tmp_path: Path, protocol: int) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = OrderedDict(weight=weight, bias=np.full(2, np.float32(0.5)))
    content = {"model": state, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    model = nn.Linear(3, 2)
    Checkpointer(model, strict=True).load(str(tmp_path / "a.pkl"))
    assert torch.equal(model.weight, torch.from_numpy(weight))
    assert model.bias.tolist() == [0.5, 0.5]


def test_caffe2_blobs(tmp_path: Path) -> None:
    blobs = {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "conv1_w_momentum": np.zeros(1)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    model = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 7, bias=False)})})
    Checkpointer(model).load(str(tmp_path / "a.pkl"))
    assert (model["stem"]["conv1"].weight == 1).all()


@pytest.mark.parametrize("suffix", [".pkl", ".pyth", ".pth"])
def test_code_does_not_run(tmp_path: Path, suffix: str) -> None:
    victim = tmp_path / "victim"
    content = {"model": {"weight": np.zeros(1)}, "__author__": "x", "extra": Attack(victim)}
    file = tmp_path / f"a{suffix}"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=rf"a\{suffix}"):
        Checkpointer(nn.Linear(1, 1)).load(str(file))
    torch.save(content, file)
    with pytest.raises(InputError, match=rf"a\{suffix}"):
        Checkpointer(nn.Linear(1, 1)).load(str(file))
    assert not victim.exists()
    pickle.loads(pickle.dumps(Attack(victim)))
    assert victim.exists()  # it would have worked


def test_damaged_files(tmp_path: Path) -> None:
    for content in (b"", b"no pickle", pickle.dumps([1])):
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.pkl"):
            Checkpointer(nn.Linear(1, 1)).load(str(tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04Nr" + (2**31 - 1).to_bytes(4, "little") + b".",  # the last of many objects
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # many bytes
        b"\x80\x04" + b"(" * 10**5 + b".",
    ],
)
def test_a_few_bytes_do_not_fill_the_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB
    with pytest.raises(InputError, match=r"^Cannot read checkpoint .*a\.pkl: it "):
        Checkpointer(nn.Linear(1, 1)).load(str(tmp_path / "a.pkl"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
