"""brloss-share: a folder to give away, and its use from disk and from the hub."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import brloss_d2
from brloss_d2.checkpoint import fingerprint, write_safetensors
from brloss_d2.checkpoint.contents import read_weights
from brloss_d2.cli.predict import main as predict_main
from brloss_d2.cli.share import main
from brloss_d2.errors import InputError
from brloss_d2.prediction.hub import check_parts_only
from tests.helpers.bright_squares import square_image
from tests.prediction.conftest import run_folder, square

__all__ = ["run_folder", "square"]  # fixtures


@pytest.fixture
def shared(run_folder: Path, tmp_path: Path) -> Path:
    _, weights = read_weights(str(run_folder / "model_final.pth"))
    content = {
        "score_threshold": 0.4,
        "computed_on": {"weights": fingerprint(weights), "annotations": "/secret/a.json"},
    }
    (run_folder / "calibration.json").write_text(json.dumps(content))
    records = [{"iteration": 4, "bbox/AP": 12.5, "bbox/APl": float("nan")}]
    (run_folder / "metrics.json").write_text("\n".join(map(json.dumps, records)) + "\n")
    lines = [
        "Command line: train_net.py --config other.py",  # of an earlier run of the folder
        "Command line: train_net.py --config /home/me/a.py train.output_dir=/x/run "
        "data.train=~/me/b.json 'x=[../../me/c.json,/me/d]' model.e=f/g",
        "Command line: train_net.py --eval-only --config other.py",
    ]
    (run_folder / "log.txt").write_text("".join(f"DEBUG: {line}\n" for line in lines))
    assert main(["--output-dir", str(run_folder), "--to", str(tmp_path / "nuts")]) == 0
    return tmp_path / "nuts"


def test_the_folder(shared: Path, run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    names = ["README.md", "calibration.json", "categories.json", "config.yaml", "model_final.pth"]
    assert sorted(path.name for path in shared.iterdir()) == names
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: brloss_d2\npipeline_tag: ")
    for text in ("# nuts\n", "\nnut, bolt\n", "(truth.json)", "| 12.5 |", "0.4000, the lowest LRP"):
        assert text in card
    command = "train_net.py --config a.py train.output_dir=run data.train=b.json 'x=[c.json,d]'"
    assert f"\n{command} model.e=f/g\n" in card and "other.py" not in card
    for path in shared.iterdir():
        content = path.read_bytes()
        assert str(run_folder.parent).encode() not in content and b"/secret" not in content
    assert main(["--output-dir", str(run_folder), "--to", str(shared)]) == 1
    assert "exists: name a new folder" in capsys.readouterr().err


def test_the_metrics_are_those_of_the_weights(run_folder: Path, tmp_path: Path) -> None:
    _, weights = read_weights(str(run_folder / "model_final.pth"))
    records = [{"iteration": 9, "bbox/AP": 70.0}, {"iteration": 19, "bbox/AP": 30.0}]
    (run_folder / "metrics.json").write_text("\n".join(map(json.dumps, records)) + "\n")
    texts = ("|           9 | 70.0 |", "|          19 | 30.0 |", "no evaluation of these weights")
    for iteration, text in zip((9, 19, 14), texts, strict=True):
        torch.save({"model": weights, "iteration": iteration}, run_folder / "model_best.pth")
        to = tmp_path / str(iteration)
        arguments = ["--output-dir", str(run_folder), "--weights", "model_best.pth"]
        assert main([*arguments, "--to", str(to)]) == 0
        assert text in (to / "README.md").read_text()


def test_it_predicts_as_the_run_does(shared: Path, run_folder: Path, square: Path, tmp_path: Path):
    image = square_image()
    (there,) = brloss_d2.predict(shared, images=image, device="cpu")
    weights = run_folder / "model_final.pth"
    (here,) = brloss_d2.predict(run_folder / "config.yaml", weights, image, device="cpu")
    assert len(there) == len(here) == 2 and there.category_ids == [9, 4]
    np.testing.assert_array_equal(there.boxes, here.boxes)
    options = ["--device", "cpu", "--input", str(square), "--output", str(tmp_path / "out")]
    assert predict_main(["--config-file", str(shared), *options]) == 0
    assert predict_main(["--config-file", str(shared / "config.yaml"), *options]) == 1


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no shared model: expected config\.yaml and one of"):
        brloss_d2.predict(tmp_path, images=square_image())


def test_from_the_hub(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert {"config.yaml", "model.safetensors", "calibration.json"} <= set(allow_patterns)
        if name != "me/nuts":
            raise OSError("404 Client Error: not found\nmore")
        return str(shared)

    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for source in ("hf://me/nuts", "hf://me/nuts@v1"):
        # The detector of the tests is no part of the package.
        with pytest.raises(InputError, match=r"calls tests\.helpers\.bright_squares\.BrightSquar"):
            brloss_d2.predict(source, images=square_image(), device="cpu")
    monkeypatch.setattr("brloss_d2.prediction.hub.check_parts_only", lambda *_: None)
    (found,) = brloss_d2.predict("hf://me/nuts", images=square_image(), device="cpu")
    assert found.class_names == ["bolt", "nut"]
    assert asked == [("me/nuts", None), ("me/nuts", "v1"), ("me/nuts", None)]
    with pytest.raises(InputError, match="Cannot download hf://me/no: 404 Client Error: not found"):
        brloss_d2.predict("hf://me/no", images=square_image())
    with pytest.raises(InputError, match="hf://nuts is no repository: expected hf://OWNER/NAME"):
        brloss_d2.predict("hf://nuts", images=square_image())
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r'huggingface_hub is missing .*"brloss_d2\[hub\]"'):
        brloss_d2.predict("hf://me/nuts", images=square_image())


@pytest.mark.parametrize(
    "text",
    [
        "{_target_: os.system, command: ls}",
        "{_target_: brloss_d2.data.images.os.system}",
        "{_target_: torch.load}",
        "{_target_: torch.nn.modules.module.warnings.os.system}",
        "{_target_: brloss_d2.predict}",
        "{_target_: brloss_d2.data.write_shapes}",
        "{_target_: detectron2.utils.registry.locate}",
        "{a: {_target_: '${b}'}}",
        "{? _target_ : [os.system]}",
        '{"_tar\\u0067et_": os.system}',
        "{a: !!python/name:os.system ''}",
        "{a: !!python/name:torch.nn.modules.module.warnings.sys.exit ''}",
        "{a: !!python/object/apply:os.system [ls]}",
        "{a: !!python/module:os ''}",
        "{a: &x {b: *x, c: !!python/object:os.x {}}}",
        "{<<: {_target_: os.system}}",
        "{a: ",
        "{}\n---\n{_target_: os.system}",
    ],
)
def test_configs_of_strangers_call_no_programs(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"^The config of hf://me/a (calls|cannot be read)"):
        check_parts_only(str(tmp_path / "config.yaml"), "hf://me/a")


@pytest.mark.parametrize(
    "name", ["coco/mask_rcnn_R_50_FPN_rs_1x", "co_detr/quick/co_dino_R_18_brs_300it"]
)
def test_configs_of_the_package_are_let_through(tmp_path: Path, name: str) -> None:
    from detectron2.config import LazyConfig

    from brloss_d2.engine import load_config
    from brloss_d2.model_zoo import config_file

    cfg, _ = load_config(config_file(name), ["test.tile=640"])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    check_parts_only(str(tmp_path / "config.yaml"), "hf://me/a")


def test_safetensors(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    target = tmp_path / "nuts"
    options = ["--output-dir", str(run_folder), "--to", str(target), "--format", "safetensors"]
    assert main(options) == 0
    file, image = target / "model.safetensors", square_image()
    weights = [read_weights(str(p))[1] for p in (file, run_folder / "model_final.pth")]
    assert fingerprint(weights[0]) == fingerprint(weights[1])
    (found,) = brloss_d2.predict(target, images=image, device="cpu")
    assert found.class_names == ["bolt"]
    tied = torch.arange(4.0)
    write_safetensors(str(file), {"a": tied, "b": tied[:2], "c": tied.view(2, 2).T}, ["x", "ü"])
    content, read = read_weights(str(file))
    assert content["classes"] == ["x", "ü"] and torch.equal(read["c"], tied.view(2, 2).T)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"Cannot .*model\.safetensors: it is damaged"):
        read_weights(str(file))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match="package safetensors is missing"):
        read_weights(str(file))
