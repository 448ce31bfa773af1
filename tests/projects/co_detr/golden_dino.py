"""Small Co-DINO of the golden files, built from our configs, and its denoising noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from detectron2.config import LazyConfig, instantiate

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.modeling import denoising
from brloss_d2.projects.co_detr.modeling.denoising import Noise
from tests.helpers.golden_models import Golden, available
from tests.projects.co_detr.golden_detector import CONFIGS, shrink, use_stored_samples, with_weights

NAMES = available("co_dino", "brs_co_dino")


def small_config(loss: str, leaf: str = "co_dino_5scale_R_50_{}_1x"):
    """The model of a leaf with the sizes of the files."""
    cfg = LazyConfig.load(str(CONFIGS / f"{leaf.format(loss)}.py")).model
    shrink(cfg, loss)
    cfg.backbone.out_features = ["res2", "res3", "res4", "res5"]
    cfg.neck.input_shapes = {"res2": 8, "res3": 16, "res4": 32, "res5": 64}
    cfg.query_head.encoder.num_recomputed = 0
    cfg.query_head.denoising.num_queries = 20
    kept = 200 if loss == "focal" else 300
    cfg.proposal_generator.post_nms_topk = (kept, kept)
    cfg.roi_heads.box_head.fc_dims = [16, 16]
    cfg.roi_heads.box_predictor.input_shape.channels = 16
    cfg.suppression.iou_threshold = 0.4
    cfg.max_detections = 20
    return cfg


def small_detector(loss: str):
    """The same detector with random weights."""
    torch.manual_seed(0)
    return instantiate(small_config(loss))


def detector(golden: Golden, unbalanced: bool = True):
    """Detector with the weights of a file; that with BRS in the form of the published configs."""
    if golden.name == "co_dino":
        return with_weights(small_config("focal"), golden)
    cfg = small_config("brs")
    if unbalanced:
        (use,) = LazyConfig.load(str(CONFIGS / "common/losses.py"), ("use_brs_unbalanced",))
        kept = cfg.proposal_generator.post_nms_topk
        use(cfg)
        cfg.proposal_generator.post_nms_topk = kept
    return with_weights(cfg, golden)


def geometry(golden: Golden) -> FeatureGeometry:
    maps = [golden.tensor("encoder/memory").new_empty(2, 1, *shape) for shape in _shapes(golden)]
    sizes = [tuple(size) for size in golden.tensor("input/image_hw").tolist()]
    return FeatureGeometry.build(maps, sizes, tuple(golden.tensor("input/batch_hw").tolist()))


def _shapes(golden: Golden) -> list[list[int]]:
    return golden.tensor("geometry/spatial_shapes").tolist()


def noise(golden: Golden) -> Noise:
    """Stored noise of the denoising queries."""
    signs, sizes = (golden.tensor(f"dn/noise/box_{x}") for x in ("sign_bit", "uniform"))
    return Noise(
        flipped=golden.tensor("dn/noise/label_uniform") < 0.25,
        new_labels=golden.tensor("dn/noise/new_labels").long(),
        signs=signs.float() * 2 - 1,
        sizes=sizes,
    )


@contextmanager
def use_stored_draws(model, golden: Golden) -> Iterator[None]:
    """Take customized queries, samples and noise from the file."""
    with (
        mock.patch.object(denoising, "draw_noise", lambda *_: noise(golden)),
        use_stored_samples(model, golden),
    ):
        yield
