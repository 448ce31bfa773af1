"""From the outputs of SOLOv2 to masks in the original image."""

from collections.abc import Callable, Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from brloss_d2.losses.base import check_numbers
from brloss_d2.modeling.instance.grid_assigner import MASK_STRIDE
from brloss_d2.modeling.instance.masks import mask_boxes, paste_masks
from brloss_d2.modeling.instance.matrix_nms import MatrixNMS, points_nms

# Number of mask pixels, at the size of the features, that are computed at once.
_MAX_PIXELS = 2**23


class GridPostprocessor:
    """Choose the best cells, lower the scores of masks that others cover, and paste what is left.

    A score is that of the class times the mean probability inside the mask. Masks that are empty in
    the original image are no detections.

    Args:
        suppress: rule that lowers scores.
        score_thresh: score that a class of a cell has to exceed.
        mask_thresh: probability that the pixels of a mask exceed.
        max_candidates: largest number of masks that `suppress` compares.
        final_thresh: least score after suppression.
        max_detections: largest number of detections per image.
        min_areas: area that masks have to exceed, in pixels of the mask features, per level.

    Raises:
        ValueError: If a number of masks is below 1.
    """

    def __init__(
        self,
        suppress: MatrixNMS,
        *,
        score_thresh: float = 0.2,
        mask_thresh: float = 0.5,
        max_candidates: int = 500,
        final_thresh: float = 0.05,
        max_detections: int = 100,
        min_areas: Sequence[float] = (8, 8, 16, 32, 32),
    ):
        check_numbers(">= 1", max_candidates=max_candidates, max_detections=max_detections)
        self.suppress, self.score_thresh, self.mask_thresh = suppress, score_thresh, mask_thresh
        self.max_candidates, self.final_thresh = max_candidates, final_thresh
        self.max_detections, self.min_areas = max_detections, list(min_areas)

    def __call__(
        self,
        scores: list[Tensor],
        kernels: list[Tensor],
        mask_features: Tensor,
        *,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Instances:
        """Detect objects in one image.

        Args:
            scores: (K, G, G) class probabilities of each level, 0 where a neighbor suppresses them.
            kernels: (E, G, G) kernels of each level.
            mask_features: (E, H, W) mask features of the padded image.
            image_size: height and width of the image without padding, in pixels.
            output_size: height and width of the original image, in pixels.

        Returns:
            `pred_boxes`, `scores`, `pred_classes` and `pred_masks` (D, *output_size), by descending
            score.
        """
        candidates = self.candidates(scores, kernels, mask_features)
        masks = masks_of(candidates.kernels, mask_features) > self.mask_thresh
        lowered = self.suppress(masks, candidates.pred_classes, candidates.scores)
        ranks = lowered.argsort(descending=True, stable=True)[: self.max_detections]
        ranks = ranks[lowered[ranks] >= self.final_thresh]
        height, width = mask_features.shape[1:]
        pasted = paste_masks(
            masks_of(candidates.kernels[ranks], mask_features),
            output_size,
            canvas=(MASK_STRIDE * height, MASK_STRIDE * width),
            image_size=image_size,
            threshold=self.mask_thresh,
        )
        found = Instances(
            output_size,
            pred_boxes=mask_boxes(pasted),
            scores=lowered[ranks],
            pred_classes=candidates.pred_classes[ranks],
            pred_masks=pasted,
        )
        return found[pasted.flatten(1).any(1).nonzero().squeeze(1)]

    def candidates(
        self, scores: list[Tensor], kernels: list[Tensor], mask_features: Tensor
    ) -> Instances:
        """Return `scores`, `pred_classes` and `kernels` (C, E) of the best cells and classes.

        Args:
            scores: (K, G, G) class probabilities of each level, 0 where a neighbor suppresses them.
            kernels: (E, G, G) kernels of each level.
            mask_features: (E, H, W) mask features.
        """
        by_cell = torch.cat([x.flatten(1).T for x in scores])
        cells, classes = (by_cell > self.score_thresh).nonzero(as_tuple=True)
        # The classes of a cell share its mask.
        distinct, index = cells.unique(return_inverse=True)
        own_kernels = torch.cat([x.flatten(1).T for x in kernels])[distinct]
        areas, certainty = self._measure(own_kernels, mask_features)
        least = torch.cat(
            [
                x.new_full((x[0].numel(),), area)
                for x, area in zip(scores, self.min_areas, strict=True)
            ]
        )
        kept = (areas[index] > least[cells]).nonzero().squeeze(1)
        own_scores = by_cell[cells, classes] * certainty[index]
        order = own_scores[kept].argsort(descending=True, stable=True)[: self.max_candidates]
        best = kept[order]
        return Instances(
            tuple(mask_features.shape[1:]),
            scores=own_scores[best],
            pred_classes=classes[best],
            kernels=own_kernels[index[best]],
        )

    def _measure(self, kernels: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (C,) areas of masks in pixels and (C,) mean probabilities inside them."""
        step = max(1, _MAX_PIXELS // mask_features[0].numel())
        parts = []
        for part in kernels.split(step):
            probs = masks_of(part, mask_features).flatten(1)
            inside = probs > self.mask_thresh
            areas = inside.sum(1)
            parts.append((areas, (probs * inside).sum(1) / areas.clamp(min=1)))
        areas, certainty = (torch.cat(part) for part in zip(*parts, strict=True))
        return areas, certainty

    def detect(
        self,
        logits: list[Tensor],
        kernels: list[Tensor],
        mask_features: Tensor,
        *,
        predict_probs: Callable[[Tensor], Tensor],
        image_sizes: Sequence[tuple[int, int]],
        output_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detect objects in a batch.

        Args:
            logits: (N, K, G, G) class logits of each level.
            kernels: (N, E, G, G) kernels of each level.
            mask_features: (N, E, H, W) mask features.
            predict_probs: function from logits (R, K) to probabilities.
            image_sizes: height and width of each image without padding, in pixels.
            output_sizes: height and width of each original image, in pixels.
        """
        # (N, K, G, G) as rows of classes and back.
        probs = [predict_probs(x.float().movedim(1, -1)).movedim(-1, 1) for x in logits]
        scores = [points_nms(x) for x in probs]
        # Pixels are counted with products of matrices, which have to be exact.
        with torch.autocast(mask_features.device.type, enabled=False):
            return [
                self(
                    [x[i] for x in scores],
                    [x[i].float() for x in kernels],
                    mask_features[i].float(),
                    image_size=sizes[0],
                    output_size=sizes[1],
                )
                for i, sizes in enumerate(zip(image_sizes, output_sizes, strict=True))
            ]


def masks_of(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """Return (C, H, W) probabilities from (C, E) kernels and (E, H, W) mask features."""
    return (kernels @ mask_features.flatten(1)).sigmoid().view(-1, *mask_features.shape[1:])
