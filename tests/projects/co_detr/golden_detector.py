"""Small Co-Deformable-DETR of the golden files, built from our configs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.projects.co_detr.modeling import co_detr
from tests.helpers.golden_models import Golden, ground_truth, load_weights, small_resnet

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
NAMES = ["brs_detr_equal_sizes", "brs_detr", "co_deformable_detr"]
CLASSES = 5


def detector(golden: Golden):
    """Detector of the leaf config, with the sizes and weights of the file."""
    return with_weights(small_config("brs" if golden.name.startswith("brs") else "focal"), golden)


def with_weights(cfg, golden: Golden):
    """Detector of a config with the weights of a file, for normalized images."""
    cfg.pixel_mean, cfg.pixel_std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    model = instantiate(cfg)
    load_weights(model, golden, architecture(golden))
    return model


def architecture(golden: Golden) -> str:
    return "co_dino" if "co_dino" in golden.name else "co_deformable_detr"


def small_detector(loss: str):
    """The same detector with random weights."""
    torch.manual_seed(0)
    return instantiate(small_config(loss))


def small_config(loss: str):
    """The model of a leaf with the sizes of the files.

    The published RPN of BRS-DETR keeps boxes of no area.
    """
    cfg = LazyConfig.load(str(CONFIGS / f"co_deformable_detr_R_50_{loss}_1x.py")).model
    shrink(cfg, loss)
    return cfg


def shrink(cfg, loss: str) -> None:
    """Give the model of a leaf the sizes of the files."""
    cfg.backbone = small_resnet(norm="FrozenBN")
    cfg.backbone.out_features = ["res3", "res4", "res5"]
    cfg.neck.update(input_shapes={"res3": 16, "res4": 32, "res5": 64}, out_channels=32)
    _shrink_query_head(cfg.query_head)
    _shrink_regions(cfg, loss)
    cfg.dense_head.head.update(in_channels=32, conv_dims=[32], num_classes=CLASSES)
    cfg.dense_head.matcher.num_classes = CLASSES
    cfg.max_custom = 20


def _shrink_query_head(head) -> None:
    for part, layers in ((head.encoder, 2), (head.decoder, 3)):
        part.update(dim=32, num_heads=4, num_layers=layers, ffn_dim=64)
    head.update(num_classes=CLASSES, num_queries=30)


def _shrink_regions(cfg, loss: str) -> None:
    rpn, heads = cfg.proposal_generator, cfg.roi_heads
    rpn.head.in_channels = 32
    rpn.pre_nms_topk = (400, 400)
    kept = 300 if loss == "focal" else 500
    rpn.post_nms_topk = (kept, kept)
    heads.num_classes = CLASSES
    heads.box_head.input_shape.channels, heads.box_head.fc_dims = 32, [32, 32]
    heads.box_predictor.input_shape.channels = 32
    if loss == "focal":
        rpn.batch_size_per_image = heads.batch_size_per_image = 64


def inputs(golden: Golden) -> list[dict]:
    """Normalized images without padding, and their objects."""
    sizes = golden.tensor("input/image_hw").tolist()
    batch = golden.tensor("input/batch")
    return [
        {"image": x[:, :h, :w], "instances": objects}
        for x, (h, w), objects in zip(batch, sizes, ground_truth(golden), strict=True)
    ]


@contextmanager
def use_stored_samples(model, golden: Golden) -> Iterator[None]:
    """Take random draws from the file: customized queries and, for the baseline, samples."""
    rows = iter([golden.tensor(f"aux{head}/row_index").long() for head in range(2)])
    with mock.patch.object(co_detr, "choose_rows", lambda *_, **__: next(rows)):
        if "rpn/sample0/pos_index" not in golden:
            yield
            return
        anchors = iter([_anchor_labels(golden, i) for i in range(2)])
        regions = iter([_region_rows(golden, i) for i in range(2)])

        def sample(matched_idxs, matched_labels, gt_classes):
            chosen = next(regions)
            background = torch.full_like(matched_idxs, CLASSES)
            classes = torch.where(matched_labels == 1, gt_classes[matched_idxs], background)
            return chosen, classes[chosen]

        with (
            mock.patch.object(
                model.proposal_generator, "_subsample_labels", lambda labels: next(anchors)
            ),
            mock.patch.object(model.roi_heads, "_sample_proposals", sample),
        ):
            yield


def _anchor_labels(golden: Golden, image: int) -> torch.Tensor:
    """(R,) labels: 1 for objects, 0 for background, -1 for anchors that are not sampled."""
    valid = golden.tensor("rpn/valid")[image].bool().nonzero().squeeze(1)
    labels = torch.full((golden.tensor("rpn/valid").shape[1],), -1, dtype=torch.int8)
    labels[valid[golden.tensor(f"rpn/sample{image}/pos_index").long()]] = 1
    labels[valid[golden.tensor(f"rpn/sample{image}/neg_index").long()]] = 0
    return labels


def _region_rows(golden: Golden, image: int) -> torch.Tensor:
    names = ("pos_index", "neg_index")
    return torch.cat([golden.tensor(f"roi/sample{image}/{x}").long() for x in names])
