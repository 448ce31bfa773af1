"""Test-time augmentation: an image in several sizes and mirrored, with one merged result.

detectron2's `GeneralizedRCNNWithTTA` takes R-CNNs alone, and merges what is left after suppression
in each view. Here any detector is taken, and the candidates of all views are suppressed together.
"""

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import detectron2.data.transforms as T
import torch
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.modeling.one_stage import DensePostprocessor
from brloss_d2.modeling.one_stage.postprocessing import suppress

_BOX_FIELDS = {"pred_boxes", "scores", "pred_classes"}
_NO_SUPPRESSION = 2.0  # a threshold that no IoU exceeds


class DetectorWithTTA(nn.Module):
    """Detector that looks at each image in several sizes and, possibly, mirrored.

    Boxes of all views compete with each other: the candidates that a view has before non-maximum
    suppression are joined, then suppressed and, in PAA, moved by score voting. Thresholds and the
    number of detections are those of the model. In an R-CNN, masks are predicted for the final
    boxes in each view and averaged. The views of a mirrored image are the mirrored views, if sizes
    are equal or resizing rounds symmetrically.

    Args:
        model: detector of this package or of detectron2, or any other with detectron2's formats.
            One that has no suppression, such as a DETR, adds its final detections.
        short_edge_length: short side of the images in the test without augmentation, in pixels.
        max_size: largest long side in the test without augmentation, in pixels.
        scales: factors of both, one for each size.
        flip: whether each size is used mirrored, too.
        max_box_sides: short side below which boxes of a size are kept, in pixels of the image
            handed over; 0 keeps all. One number for each of `scales`; None keeps all.
        nms_thresh: IoU above which the lower of two boxes of a class is dropped, for models that
            have no suppression, and several views.

    Raises:
        InputError: there are no scales, or not as many limits as scales, or the model predicts what
            cannot be merged.

    Example:
        >>> from brloss_d2.modeling import DetectorWithTTA
        >>> from torch import nn
        >>> len(DetectorWithTTA(nn.Module(), scales=(0.75, 1.0)).views)
        4
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        short_edge_length: int = 800,
        max_size: int = 1333,
        scales: Sequence[float] = (0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5),
        flip: bool = True,
        max_box_sides: Sequence[float] | None = None,
        nms_thresh: float = 0.5,
    ):
        super().__init__()
        limits = [0.0] * len(scales) if max_box_sides is None else list(max_box_sides)
        sides = [round(x * short_edge_length) if 0 < x < math.inf else 0 for x in scales]
        if not sides or min(sides) < 1 or len(limits) != len(scales):
            raise InputError(
                f"Test-time augmentation with the scales {list(scales)} and the box sides "
                f"{limits}: expected scales that leave at least a pixel, and as many box sides."
            )
        if hasattr(model, "mask_criterion"):  # of a detector with masks of the whole image
            raise _unknown(model, "pred_masks")
        self.model, self.nms_thresh = model, nms_thresh
        self.views = [
            View(side, round(scale * max_size), mirrored, limit)
            for side, scale, limit in zip(sides, scales, limits, strict=True)
            for mirrored in ((False, True) if flip else (False,))
        ]
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Detect objects; in training, return the losses of the model.

        Args:
            batched_inputs: detectron2's dictionaries. An `image` of the original size is resized
                once only; one that was resized before is resized again.

        Returns:
            A dictionary per image with `instances` in pixels of `height` and `width`, by default
            the size of the image.

        Raises:
            InputError: the model predicts what cannot be merged.
        """
        if self.training:
            return self.model(batched_inputs)
        if torch.jit.is_tracing():
            raise InputError("Test-time augmentation cannot be exported: leave it out.")
        first, *others = self.views
        is_plain = not (others or first.mirrored or first.max_box_side)
        results = []
        for x in batched_inputs:
            height, width = x["image"].shape[1:]
            size = x.get("height", height), x.get("width", width)
            if is_plain:  # not even the order of suppressing and dropping empty boxes changes
                view = {"image": first.resized(x["image"]), "height": size[0], "width": size[1]}
                results += self.model([view])
            else:
                detections = self._detect(x["image"])
                results.append({"instances": detector_postprocess(detections, *size)})
        return results

    def _detect(self, image: Tensor) -> Instances:
        """Return detections in pixels of the image, with masks as probabilities in their boxes."""
        suppression = Suppression.of(self.model)
        changes: list[tuple[Any, dict[str, Any]]] = []
        if suppression is not None:
            changes.append((suppression.owner, suppression.off()))
        if _predicts_masks(self.model):
            changes.append((self.model.roi_heads, {"mask_on": False}))
        with ExitStack() as stack:  # all candidates, without masks
            for owner, settings in changes:
                for name, value in settings.items():
                    stack.callback(setattr, owner, name, getattr(owner, name))
                    setattr(owner, name, value)
            found = [view.detect(self.model, image) for view in self.views]
        if suppression is not None:
            detections = suppression(Instances.cat(found))
        elif len(found) > 1:
            most = max(map(len, found))
            detections = _suppressed(Instances.cat(found), self.nms_thresh, most)
        else:
            (detections,) = found
        if _predicts_masks(self.model):
            views = self.views if len(detections) else self.views[:1]
            masks = [view.masks(self.model, image, detections) for view in views]
            detections.pred_masks = torch.stack(masks).mean(0)
        return detections


@dataclass(frozen=True)
class View:
    """One size of an image, possibly mirrored.

    Attributes:
        short_edge_length: short side of the resized image in pixels.
        max_size: largest long side of the resized image in pixels.
        mirrored: whether left and right are exchanged.
        max_box_side: short side below which boxes are kept; 0 keeps all.
    """

    short_edge_length: int
    max_size: int
    mirrored: bool
    max_box_side: float = 0.0

    def resized(self, image: Tensor) -> Tensor:
        """Return the view (C, H', W') of an image (C, H, W)."""
        augmented = T.AugInput(image.permute(1, 2, 0).cpu().numpy())
        T.ResizeShortestEdge(self.short_edge_length, self.max_size)(augmented)
        view = torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())
        return view.flip(2) if self.mirrored else view

    def mirror(self, boxes: Tensor, width: float) -> Tensor:
        """Return boxes (N, 4) of an image in its mirror image, and vice versa."""
        if not self.mirrored:
            return boxes
        x0, y0, x1, y1 = boxes.unbind(1)
        return torch.stack([width - x1, y0, width - x0, y1], 1)

    def detect(self, model: nn.Module, image: Tensor) -> Instances:
        """Return the boxes that a model finds in the view, in pixels of the image."""
        height, width = image.shape[1:]
        x = {"image": self.resized(image), "height": height, "width": width}
        found = model([x])[0]["instances"]
        if others := found.get_fields().keys() - _BOX_FIELDS:
            raise _unknown(model, *sorted(others))
        found.pred_boxes = Boxes(self.mirror(found.pred_boxes.tensor, width))
        if self.max_box_side:
            x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
            found = found[torch.minimum(x1 - x0, y1 - y0) < self.max_box_side]
        return found

    def masks(self, model: GeneralizedRCNN, image: Tensor, detections: Instances) -> Tensor:
        """Return (N, 1, M, M) mask probabilities in the boxes of detections in the image."""
        view = self.resized(image)
        height, width = view.shape[1:]
        boxes = Boxes(self.mirror(detections.pred_boxes.tensor, image.shape[2]).clone())
        boxes.scale(width / image.shape[2], height / image.shape[1])
        given = Instances((height, width), pred_boxes=boxes, pred_classes=detections.pred_classes)
        (found,) = model.inference([{"image": view}], [given], do_postprocess=False)
        return found.pred_masks.flip(3) if self.mirrored else found.pred_masks


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression of a detector, with the settings that the detector has.

    Attributes:
        owner: object with the settings.
        nms_thresh: name of the IoU above which the lower of two boxes of a class is dropped.
        max_detections: name of the largest number of detections.
    """

    owner: Any
    nms_thresh: str
    max_detections: str

    @classmethod
    def of(cls, model: nn.Module) -> "Suppression | None":
        """Find the suppression of a detector; None if it has none, or another rule."""
        postprocessor = getattr(model, "postprocessor", None)
        if isinstance(postprocessor, DensePostprocessor):  # not that of YOLACT
            return cls(postprocessor, "nms_thresh", "max_detections")
        if isinstance(model, GeneralizedRCNN):
            predictor = model.roi_heads.box_predictor
            if isinstance(predictor, nn.ModuleList):  # the last stage of a cascade
                predictor = predictor[-1]
            return cls(predictor, "test_nms_thresh", "test_topk_per_image")
        if hasattr(model, "test_nms_thresh"):  # detectron2's RetinaNet and FCOS
            return cls(model, "test_nms_thresh", "max_detections_per_image")
        return None

    def __call__(self, candidates: Instances) -> Instances:
        """Return the detections among candidates, by descending score."""
        threshold, most = (getattr(self.owner, x) for x in (self.nms_thresh, self.max_detections))
        kept = _suppressed(candidates, threshold, most)
        voting = getattr(self.owner, "voting", None)
        return kept if voting is None else voting(kept, candidates)

    def off(self) -> dict[str, Any]:
        """Return the settings that keep all candidates."""
        settings: dict[str, Any] = {
            self.nms_thresh: _NO_SUPPRESSION,
            self.max_detections: sys.maxsize,
            "voting": None,
        }
        return {name: value for name, value in settings.items() if hasattr(self.owner, name)}


def _suppressed(candidates: Instances, nms_thresh: float, max_detections: int) -> Instances:
    most = max_detections if max_detections >= 0 else sys.maxsize
    return candidates[suppress(candidates, nms_thresh, most)]


def _predicts_masks(model: nn.Module) -> bool:
    return isinstance(model, GeneralizedRCNN) and model.roi_heads.mask_on


def _unknown(model: nn.Module, *fields: str) -> InputError:
    """Return the error that the model predicts what cannot be merged."""
    return InputError(
        "Test-time augmentation merges boxes, and masks of an R-CNN, but this "
        f"{type(model).__name__} also predicts {', '.join(fields)}: switch it off."
    )
