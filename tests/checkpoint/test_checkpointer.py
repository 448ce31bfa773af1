import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.errors import InputError


class Counter:
    def __init__(self, value: int):
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def linear(value: float, inputs: int = 2) -> nn.Linear:
    model = nn.Linear(inputs, 2)
    nn.init.constant_(model.weight, value)
    return model


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    Checkpointer(linear(3), str(tmp_path), part=Counter(5)).save("a", iteration=7)
    model, part = linear(0), Counter(0)
    other = Checkpointer(model, str(tmp_path), part=part)
    assert other.get_checkpoint_file() == str(tmp_path / "a.pth")
    rest = other.load(other.get_checkpoint_file())
    assert rest["iteration"] == 7
    assert part.value == 5 and bool((model.weight == 3).all())
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "last_checkpoint"]


def test_a_crash_while_saving_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear(1)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("a")

    def crash(data: Any, file: str) -> None:
        Path(file).write_text("half")
        raise OSError("disk full")

    nn.init.constant_(model.weight, 2)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(torch, "save", crash)
        checkpointer.save("a")
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "last_checkpoint"]
    checkpointer.load(str(tmp_path / "a.pth"))
    assert bool((model.weight == 1).all())


def test_weights_of_other_names_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, content = nn.ModuleDict({"a": linear(0), "b": nn.ReLU()}), linear(3).state_dict()
    content["a.bias"] = content.pop("bias")
    torch.save({"model": content}, tmp_path / "a.pth")
    with caplog.at_level("INFO", "brloss_d2"):
        Checkpointer(model).load(f"{tmp_path / 'a.pth'}?matching_heuristics=True")
    assert bool((model["a"].weight == 3).all())
    assert caplog.messages[-1].startswith("1 of 2 parameters take weights of other names, ")
    assert caplog.messages[-1].endswith(": a.weight")


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["EVIL_FOLDER"],)


def test_no_code_of_a_checkpoint_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_FOLDER", str(tmp_path / "evil"))
    torch.save({"model": linear_state(), "extra": Evil()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"Cannot read checkpoint .*a\.pth"):
        Checkpointer(linear(1)).load(str(tmp_path / "a.pth"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.pth"
    if content is None:
        torch.save(linear_state(), file)
        content = file.read_bytes()[:-200]
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pth"):
        Checkpointer(linear(1)).load(str(file))


def test_other_contents_and_missing_files(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(InputError, match="list"):
        Checkpointer(linear(1)).load(str(tmp_path / "a.pth"))
    with pytest.raises(InputError, match="missing"):
        Checkpointer(linear(1)).load(str(tmp_path / "b.pth"))
    assert Checkpointer(linear(1)).load("") == {}


def test_strict_refuses_what_fine_tuning_allows(tmp_path: Path) -> None:
    torch.save({"model": linear_state(inputs=2)}, tmp_path / "a.pth")
    wider = linear(0, 3)  # the bias still fits
    Checkpointer(wider).load(str(tmp_path / "a.pth"))
    with pytest.raises(InputError, match=r"1 of 2 parameters .*first weight"):
        Checkpointer(wider, strict=True).load(str(tmp_path / "a.pth"))


def test_weights_that_do_not_fit_at_all_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"other.weight": torch.zeros(2)}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="2 of 2 parameters"):
        Checkpointer(linear(0)).load(str(tmp_path / "a.pth"))


def linear_state(inputs: int = 2) -> dict[str, torch.Tensor]:
    return linear(1, inputs).state_dict()
