"""Detectors as graphs for any number of images of one size."""

from typing import Any

import torch
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from brloss_d2.errors import InputError

# Module that counts objects with Python's len(), which a trace would keep as a constant.
COUNTING = "brloss_d2.modeling.rcnn.box_predictor"


class BatchDetector(nn.Module):
    """One-stage detector or R-CNN for boxes as a function of images (N, 3, H, W) of one size.

    A one-stage detector computes everything but the suppression for all images together, an R-CNN
    its backbone. The rest is a loop over the images, for whose number a trace has no constant.

    Args:
        model: detector in evaluation mode, with parameters that need no gradient.
        example: (3, H, W) image as the network takes it, with objects.

    Raises:
        InputError: the detector is of another kind.
    """

    def __init__(self, model: Any, example: Tensor):
        super().__init__()
        if not isinstance(model, GeneralizedRCNN) and not (
            isinstance(model, DenseDetector) and hasattr(model, "postprocessor")
        ):
            raise InputError(
                f"Only one-stage detectors, R-CNNs and Co-DETR can be exported for batches of any "
                f"size, not a {type(model).__name__}."
            )
        self.model: Any = model
        images = model.preprocess_image([{"image": example}])
        (height, width), padded = images.image_sizes[0], images.tensor.shape[2:]
        self.padding = (0, padded[1] - width, 0, padded[0] - height)
        with torch.no_grad():
            outputs = self._outputs(images.tensor)
            single = _OneImage(model, images, [tensor.shape[1:] for tensor in outputs])
            with patch_builtin_len([COUNTING]):
                traced = torch.jit.trace(single, _packed(outputs)[0], check_trace=False)
        if isinstance(model, GeneralizedRCNN):
            predictors = model.roi_heads.box_predictor  # a list in a cascade
            last: Any = predictors[-1] if isinstance(predictors, nn.ModuleList) else predictors
            most = last.test_topk_per_image
        else:
            most = model.postprocessor.max_detections
        self.each = torch.jit.script(_EachImage(traced, most))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, D, 4), labels (N, D) and scores (N, D), 0 where an image has fewer."""
        normalized = (images - self.model.pixel_mean) / self.model.pixel_std
        return self.each(_packed(self._outputs(F.pad(normalized, self.padding))))

    def _outputs(self, images: Tensor) -> list[Tensor]:
        """Return what is computed for all images together, each tensor (N, C, h, w)."""
        features = self.model.backbone(images)
        if isinstance(self.model, GeneralizedRCNN):
            return list(features.values())
        levels = [features[name] for name in self.model.head_in_features]
        return [x for part in self.model.head(levels) if part is not None for x in part]


class _OneImage(nn.Module):
    """Detections in an image from the outputs for it, flat and one after the other."""

    def __init__(self, model: Any, images: ImageList, shapes: list[torch.Size]):
        super().__init__()
        self.model: Any = model
        self.images, self.shapes = images, shapes
        features = model.backbone(images.tensor)
        self.features = {name: torch.zeros_like(feature) for name, feature in features.items()}

    def forward(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = packed.split([shape.numel() for shape in self.shapes])
        outputs = [x.reshape(1, *shape) for x, shape in zip(parts, self.shapes, strict=True)]
        if isinstance(self.model, GeneralizedRCNN):
            features = dict(zip(self.features, outputs, strict=True))
            proposals, _ = self.model.proposal_generator(self.images, features)
            (found,), _ = self.model.roi_heads(self.images, features, proposals)
        else:
            # Of the features only the sizes matter, for the anchors.
            levels = [self.features[name] for name in self.model.head_in_features]
            kinds = [outputs[i : i + len(levels)] for i in range(0, len(outputs), len(levels))]
            logits, deltas, quality = kinds if len(kinds) == 3 else (*kinds, None)
            predictions = logits, deltas, quality
            (found,) = self.model.forward_inference(self.images, levels, predictions)
        return found.pred_boxes.tensor, found.pred_classes, found.scores


class _EachImage(nn.Module):
    """Detections in each image of a batch, filled up to the same number."""

    def __init__(self, single: torch.jit.ScriptModule, most: int):
        super().__init__()
        self.single, self.most = single, most

    def forward(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        all_boxes: list[Tensor] = []
        all_labels: list[Tensor] = []
        all_scores: list[Tensor] = []
        for i in range(packed.shape[0]):
            boxes, labels, scores = self.single(packed[i])
            rows = torch.arange(self.most, device=packed.device).clamp(max=boxes.shape[0])
            nothing = torch.zeros(1, dtype=torch.int64, device=packed.device)
            all_boxes.append(torch.cat([boxes, boxes.new_zeros((1, 4))])[rows])
            all_labels.append(torch.cat([labels, nothing])[rows])
            all_scores.append(torch.cat([scores, scores.new_zeros((1,))])[rows])
        return torch.stack(all_boxes), torch.stack(all_labels), torch.stack(all_scores)


def _packed(tensors: list[Tensor]) -> Tensor:
    """Return (N, T), all tensors of an image in one row."""
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
