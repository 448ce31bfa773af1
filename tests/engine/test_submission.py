"""The key `test.submission`: one command from weights to the files of COCO's server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import instantiate
from pycocotools.coco import COCO

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file
from tests.helpers import coco_files as files

SLIM = Path(config_file("quick/mask_rcnn_R_18_FPN_rs_300it"))
SMALL = [
    "train.device=cpu",
    "dataloader.test.num_workers=0",
    "data.short_side=64",
    "model.roi_heads.box_predictor.test_score_thresh=0.0",
]


def test_boxes_and_masks_of_a_test_set(train_net: Callable[..., Path], tmp_path: Path) -> None:
    images = files.content()
    del images["annotations"]
    images["categories"].append({"id": 90, "name": "key"})
    file = files.write(tmp_path / "test2017", images, name="image_info_test-dev2017.json")
    cfg, _ = load_config(str(SLIM), [*SMALL, f"data.val={file}"])
    Checkpointer(instantiate(cfg.model), str(tmp_path)).save("weights")
    train_net(
        *(*SMALL, f"data.val={file}", f"train.init_checkpoint={tmp_path / 'weights.pth'}"),
        *(f"train.output_dir={tmp_path / 'out'}", "test.submission=rs"),
        file=SLIM,
        eval_only=True,
    )
    for task, key in (("bbox", "bbox"), ("segm", "segmentation")):
        path = tmp_path / "out/inference" / task / "detections_test-dev2017_rs_results.json"
        found = json.loads(path.read_text())
        assert found and all(key in entry for entry in found)
        assert len(COCO(file).loadRes(str(path)).anns) == len(found)


def test_a_training_cannot_evaluate_on_it(
    train_net: Callable[..., Path], coco: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "a.json"
    images = json.loads(file.read_text())
    del images["annotations"]
    (tmp_path / "b.json").write_text(json.dumps(images))
    with pytest.raises(SystemExit):
        train_net(coco[0], f"data.val={tmp_path / 'b.json'}")
    assert "it lists no annotations, so that only --eval-only can use it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train_net(f"data.train={tmp_path / 'b.json'}", coco[1])
    assert "no key annotations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        ("coco/atss_R_50_FPN_rs_1x", "a/b", "name of the submission is 'a/b'"),
        ("lvis_v1/mask_rcnn_R_50_FPN_rs_1x", "rs", "to be a COCOEvaluator"),
    ],
)
def test_mistakes(config: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(config_file(config), [f"test.submission={name}"])
