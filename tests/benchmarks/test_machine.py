"""Devices that can be measured."""

import pytest
import torch

import inference
import losses

CONFIG = ["--configs", "a.py"]


@pytest.mark.parametrize(("program", "needed"), [(losses, []), (inference, CONFIG)])
def test_a_device_that_this_machine_lacks(program, needed, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        program.main(["--device", "cuda", *needed])
    assert "argument --device: invalid choice: 'cuda'" in capsys.readouterr().err
