"""Fine-tuning on other classes: the Cityscapes recipe starts from a detector of COCO."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
# Layers with one row per class: the published recipe skips them, so that they start from scratch.
LAST_LAYERS = {
    f"roi_heads.{layer}.{kind}"
    for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
    for kind in ("weight", "bias")
}


def mask_rcnn(num_classes, loss):
    cfg = LazyConfig.load(str(CONFIGS / f"coco/mask_rcnn_R_50_FPN_{loss}_1x.py")).model
    cfg.roi_heads.num_classes = num_classes
    cfg.backbone.out_channels = 8  # small, and still every kind of layer
    cfg.proposal_generator.head.in_channels = 8
    cfg.roi_heads.box_head.input_shape.channels = 8
    cfg.roi_heads.box_head.fc_dims = [8]
    cfg.roi_heads.box_predictor.input_shape.channels = 8
    cfg.roi_heads.mask_head.update(conv_dims=[8, 8])
    cfg.roi_heads.mask_head.input_shape.channels = 8
    return instantiate(cfg)


@pytest.mark.parametrize("loss", ["ce", "brs"])
def test_all_but_the_last_layers_is_taken_over(tmp_path, caplog, loss):
    """From softmax as well: the published models start from one trained with cross-entropy."""
    coco = mask_rcnn(80, loss)
    Checkpointer(coco, str(tmp_path)).save("coco")
    model = mask_rcnn(8, "brs")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        Checkpointer(model).load(str(tmp_path / "coco.pth"))
    after, source = model.state_dict(), coco.state_dict()
    own = {name for name in after if after[name].shape != source[name].shape}
    assert own == LAST_LAYERS
    for name, value in after.items():
        expected = before[name] if name in LAST_LAYERS else source[name]
        assert torch.equal(value, expected), name
    assert all(name in caplog.text for name in LAST_LAYERS), (
        "the layers that start from scratch are reported"
    )


def test_it_cannot_be_evaluated_or_resumed_so(tmp_path):
    Checkpointer(mask_rcnn(80, "brs"), str(tmp_path)).save("coco")
    with pytest.raises(InputError, match="of another model: 6 of"):
        Checkpointer(mask_rcnn(8, "brs"), strict=True).load(str(tmp_path / "coco.pth"))
