"""Damaged files and files of other kinds: one sentence each, and never other weights."""

import gzip
import io
import json
import os
import pickle
import random
import struct
import sys
import traceback
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer, local_file, read_checkpoint
from brloss_d2.errors import InputError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 170000000\n"
SAFE = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer{i}.weight": torch.randn(7, 5, generator=generator) for i in range(8)}


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def archive(compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, content in entries.items():
            opened.writestr(name, content)
    return file.getvalue()


def test_a_flipped_bit_is_noticed_or_does_no_harm(tmp_path: Path) -> None:
    """Padding and dates may change; anything else makes the file damaged."""
    good, file, generator = weights(), tmp_path / "a.pth", random.Random(0)
    data = saved({"model": good, "iteration": 3})
    harmless = 0
    for _ in range(200):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        try:
            found = read_checkpoint(str(file))
        except InputError:
            continue
        harmless += 1
        assert found["iteration"] == 3 and found["model"].keys() == good.keys()
        assert all(torch.equal(found["model"][name], good[name]) for name in good)
    assert harmless < 100


def test_checksums_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, compared, testzip = str(tmp_path / "a.pth"), [], zipfile.ZipFile.testzip

    def counted(archive: zipfile.ZipFile) -> str | None:
        compared.append(archive.filename)
        return testzip(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted)
    torch.save(nn.Linear(3, 2).state_dict(), file)
    local_file(file)  # before a training
    Checkpointer(nn.Linear(3, 2)).load(file)
    assert compared == [file]


@pytest.mark.parametrize("kind", ["pth", "legacy.pth", "pkl"])
def test_an_end_that_is_missing(tmp_path: Path, kind: str) -> None:
    if kind == "pkl":
        arrays = {name: value.numpy() for name, value in weights().items()}
        data = pickle.dumps({"model": arrays, "__author__": "x"})
    else:
        data = saved(weights(), _use_new_zipfile_serialization=kind == "pth")
    file = tmp_path / f"a.{kind}"
    for share in (0.1, 0.5, 0.99):
        file.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=r"is damaged \(.*\); download or copy it again, or"):
            read_checkpoint(str(file))


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"), reason="torch has an option since 2.6"
)
def test_a_file_without_checksums_loads(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(), tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(str(tmp_path / "a.pth")).keys() == weights().keys()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "it is empty; download"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "it is a web page; download the file itself"),
        (b"<?xml version='1.0'?><Error>", "it is XML; download the file itself, or"),
        (LFS, "it is a pointer of Git LFS instead of the file itself; run git lfs pull"),
        (b'{"error": "\x1b[31m"}', "it is JSON; expected a checkpoint of PyTorch"),
        (b"Not Found", "it is a text that begins with 'Not Found', or damaged"),
        ("Nicht da".encode("utf-16"), "it is a text that begins with 'Nicht da'"),
        (struct.pack("<Q", len(SAFE)) + SAFE, "it is a safetensors file; convert it"),
        (b" " + bytes(7) + SAFE[:32], "it is a safetensors file"),  # 32 is a space
        (gzip.compress(b"a", mtime=0), "it is a packed archive; unpack it"),
        (b"\x89PNG\r\n\x1a\n", "it is an image"),
        (bytes(600), "it is zeros, as of a copy that was broken off; copy it again"),
        (b"\1" * 600, "it is no checkpoint of PyTorch, or damaged"),
        (archive(**{"a.jpg": b"x"}), r"it is an archive of a\.jpg; unpack it"),
        (archive(**{"a/code/x.py": b"", "a/constants.pkl": b""}), "it is a TorchScript program"),
        (archive(**{"a/archive_format": b"pt2"}), r"it is a program exported by torch\.export"),
        (archive(**{"a.npy": b""}), "it is an archive of NumPy arrays"),
        (archive(zipfile.ZIP_DEFLATED, **{"a/data.pkl": b"}" * 10**6}), "it is compressed"),
        (saved([1]), "it holds a list, but a checkpoint is a dictionary"),
        (saved({"model": nn.Linear(1, 1)}), r"it wants to run torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=rf"^Cannot read checkpoint .*a\.pth: {expected}") as got:
        Checkpointer(nn.Linear(1, 1)).load(str(tmp_path / "a.pth"))
    assert str(got.value).isprintable()
    # Neither in the message nor in a traceback.
    assert "weights_only=False" not in "".join(traceback.format_exception(got.value))


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path, tmp_path / "pipe.pth"):
        with pytest.raises(InputError, match="it is no file"):
            Checkpointer(nn.Linear(1, 1)).load(str(path))


def wrapped(**inner: Any) -> dict[str, Any]:
    return {"epoch": 3, **inner}


STATE = nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        wrapped(state_dict={f"model.{name}": value for name, value in STATE.items()}),
        wrapped(model_state_dict=STATE, optimizer_state_dict={"state": {}}),
        wrapped(ema={"module": STATE}),
        {f"module._orig_mod.{name}": value for name, value in STATE.items()},
        wrapped(model=STATE, args=Namespace(folder=Path("a"), best=np.float64(0.3))),
        wrapped(model={**STATE, 5: torch.zeros(1), "note": "text"}),
        {name: value.numpy() for name, value in STATE.items()},
    ],
)
def test_weights_are_found(tmp_path: Path, content: dict[Any, Any]) -> None:
    torch.save(content, tmp_path / "a.pth")
    model = nn.Linear(3, 2)
    Checkpointer(model, strict=True).load(str(tmp_path / "a.pth"))
    assert torch.equal(model.weight, STATE["weight"]) and torch.equal(model.bias, STATE["bias"])


def test_statistics_of_mmdetection_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints have objects that refer to their methods, next to the weights."""
    module = ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def mean(self) -> None: ...

        def __getstate__(self) -> dict[str, Any]:
            return {"history": np.zeros(3), "methods": {"mean": HistoryBuffer.mean}}

    for name in ("HistoryBuffer", "HistoryBuffer.mean"):
        found = HistoryBuffer.mean if "." in name else HistoryBuffer
        found.__module__, found.__qualname__ = module.__name__, name
    module.__dict__["HistoryBuffer"] = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"state_dict": STATE, "message_hub": {"lr": HistoryBuffer()}}, tmp_path / "a.pth")
    model = nn.Linear(3, 2)
    Checkpointer(model, strict=True).load(str(tmp_path / "a.pth"))
    assert torch.equal(model.weight, STATE["weight"])


def changed(change: Callable[[Tensor], object]) -> dict[str, Any]:
    return {"model": {name: change(value) for name, value in STATE.items()}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"state": {}, "param_groups": []}, "the state of an optimizer, but no weights"),
        ({"optimizer": {"state": {}}, "epoch": 3}, "the state of an optimizer, but no weights"),
        ({"a": 1}, r"it holds no weights, but a \(int\)"),
        ({"model": None}, r"no weights, but model \(NoneType\)"),
        ({"model": list(STATE.values())}, r"no weights, but model \(list\)"),
        (changed(lambda value: "text"), r"no weights, but model \(dict\)"),
        ({"model": {"a.b": torch.zeros(2)}}, r"of another model: 2 of 2 .*named a\.b, those"),
        ({"state_dict": {"bbox_head.x": torch.zeros(2)}}, "mmdetection. Convert it first: brloss"),
        (changed(lambda value: value * torch.nan), "2 of 2 weights are unusable, .*has NaN or inf"),
        (changed(lambda value: value / 0), "has NaN or infinite values"),
        (changed(lambda value: value.long()), "has int64 instead of float32"),
        (changed(lambda value: value.to(torch.complex64)), "has complex numbers"),
        (changed(lambda value: value.to("meta")), "has no values"),
        (changed(lambda value: value.to_sparse()), "is sparse"),
    ],
)
def test_other_contents(tmp_path: Path, content: dict[str, Any], expected: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=expected) as got:
        Checkpointer(nn.Linear(3, 2)).load(str(tmp_path / "a.pth"))
    assert "a.pth" in str(got.value)


class Part:
    def state_dict(self) -> dict[str, int]:
        return {"value": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"] + 1


@pytest.mark.parametrize(
    "state", [{"part": 5}, {"part": {"value": "x"}}, {"iteration": -7}, {"iteration": 10**30}]
)
def test_a_damaged_state_of_the_training(tmp_path: Path, state: dict[str, Any]) -> None:
    torch.save({"model": STATE, "iteration": 1, "part": {"value": 1}, **state}, tmp_path / "a.pth")
    checkpointer = Checkpointer(nn.Linear(3, 2), part=Part())
    with pytest.raises(InputError, match=rf"is damaged, or .*\({next(iter(state))}.*without --re"):
        checkpointer.load(str(tmp_path / "a.pth"))
    checkpointer.load(str(tmp_path / "a.pth"), [])  # the weights only


def test_a_download_that_cannot_be_used_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "a.pth"

    def get_local_path(url: str) -> str:
        cached.write_bytes(saved(STATE)[:500])
        return str(cached)

    monkeypatch.setattr("brloss_d2.checkpoint.sources.PathManager.get_local_path", get_local_path)
    with pytest.raises(InputError, match=r"of http://x/a\.pth cannot be used .*it is damaged"):
        local_file("http://x/a.pth")
    assert not cached.exists()


def test_addresses(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    torch.save(STATE, file)
    assert local_file(f"file://{file}") == str(file)
    with pytest.raises(InputError, match=r"Cannot read s3://a/b: expected a file, http://"):
        local_file("s3://a/b")
