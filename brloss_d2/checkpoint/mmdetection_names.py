"""Names of mmdetection's weights beside ours, put together from the parts of the detectors."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from brloss_d2.checkpoint.co_detr_names import co_deformable_detr
from brloss_d2.checkpoint.mmdetection_parts import Pair, box_head, conv, module, resnet, rpn

# Centerness of ATSS, IoU of PAA; detectors with a ranking loss have none.
_QUALITY = ("bbox_head.atss_centerness", "head.quality")


def name_table(state: Iterable[str], architecture: str) -> list[Pair]:
    """The names of all weights of a detector.

    Args:
        state: names of its state dict, published or ours. They tell what the architecture leaves
            open, such as the depth of the backbone and whether there is a quality branch.
        architecture: a key of `TABLES`.

    Returns:
        Pairs of (published name, our name).
    """
    return list(TABLES[architecture](list(state)))


def _on_resnet(*parts: Callable[[], Iterable[Pair]]) -> Callable[[list[str]], Iterable[Pair]]:
    def table(state: list[str]) -> Iterable[Pair]:
        return chain(resnet(state, "backbone.bottom_up"), *(part() for part in parts))

    return table


def _fpn(first_level: int) -> Iterator[Pair]:
    for i, level in enumerate(range(first_level, 6)):
        yield from module(f"neck.lateral_convs.{i}.conv", f"backbone.fpn_lateral{level}")
        yield from module(f"neck.fpn_convs.{i}.conv", f"backbone.fpn_output{level}")


def _mask_head() -> Iterator[Pair]:
    published, ours = "roi_head.mask_head", "roi_heads.mask_head"
    for i in range(4):
        yield from module(f"{published}.convs.{i}.conv", f"{ours}.mask_fcn{i + 1}")
    yield from module(f"{published}.upsample", f"{ours}.deconv")
    yield from module(f"{published}.conv_logits", f"{ours}.predictor")


def _faster_rcnn() -> Iterator[Pair]:
    return chain(_fpn(2), rpn(), box_head("roi_head.bbox_head"))


def _cascade_rcnn() -> Iterator[Pair]:
    stages = (box_head(f"roi_head.bbox_head.{i}", f"{i}.") for i in range(3))
    return chain(_fpn(2), rpn(), *stages)


def _dense_pyramid() -> Iterator[Pair]:
    yield from _fpn(3)
    yield from module("neck.fpn_convs.3.conv", "backbone.top_block.p6")
    yield from module("neck.fpn_convs.4.conv", "backbone.top_block.p7")


def _dense_head() -> Iterator[Pair]:
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for i in range(4):
            yield from conv(f"bbox_head.{branch}.{i}.conv", f"head.{tower}.{i}")
            yield from module(f"bbox_head.{branch}.{i}.gn", f"head.{tower}.{i}.norm")
    yield from module("bbox_head.atss_cls", "head.cls_logits")
    yield from module("bbox_head.atss_reg", "head.bbox_pred")
    for level in range(5):
        yield from module(f"bbox_head.scales.{level}", f"head.scales.{level}", ("scale",))


def _dense(state: list[str]) -> Iterator[Pair]:
    yield from _on_resnet(_dense_pyramid, _dense_head)(state)
    if any(name.startswith(_QUALITY) for name in state):
        yield from module(*_QUALITY)


def _plain_dense_head(published: str) -> Iterator[Pair]:
    """RetinaNet and FoveaBox: towers without normalization, no scales."""
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for i in range(4):
            yield from module(f"bbox_head.{branch}.{i}.conv", f"head.{tower}.{i}")
    yield from module(f"bbox_head.{published}_cls", "head.cls_logits")
    yield from module(f"bbox_head.{published}_reg", "head.bbox_pred")


TABLES: dict[str, Callable[[list[str]], Iterable[Pair]]] = {
    "faster_rcnn": _on_resnet(_faster_rcnn),
    "cascade_rcnn": _on_resnet(_cascade_rcnn),
    "mask_rcnn": _on_resnet(_faster_rcnn, _mask_head),
    "atss": _dense,
    "paa": _dense,
    "retinanet": _on_resnet(_dense_pyramid, partial(_plain_dense_head, "retina")),
    "fovea": _on_resnet(_dense_pyramid, partial(_plain_dense_head, "fovea")),
    "resnet": _on_resnet(),
    "co_deformable_detr": co_deformable_detr,
}
