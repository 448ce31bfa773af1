"""One-stage detectors: RetinaNet, ATSS, PAA and FoveaBox are configurations of one class."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion
from brloss_d2.errors import InputError
from brloss_d2.losses.base import check_types
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.modeling.one_stage.assigners import Assigner
from brloss_d2.modeling.one_stage.box_coding import DeltaTransform, LogDistanceTransform
from brloss_d2.modeling.one_stage.head import DenseOutputs
from brloss_d2.modeling.one_stage.matching import DenseMatcher
from brloss_d2.modeling.one_stage.postprocessing import Postprocessor
from brloss_d2.modeling.yaml import recipe_parts


@META_ARCH_REGISTRY.register()
class OneStageDetector(DenseDetector):
    """Detector that predicts for every anchor, or point, of a feature pyramid.

    Anchors in the padding of the batch are left out before assignment and ignored.

    Args:
        backbone: feature pyramid.
        head: module from features to `DenseOutputs`, with quality if the criterion trains it; see
            `TowerHead`.
        anchor_generator: generator of the anchors; a point is a square box around it.
        box_transform: encoding of the boxes.
        assigner: rule by which objects are assigned to anchors.
        criterion: losses, and the meaning of the logits.
        postprocessor: step from outputs to detections.
        num_classes: number of foreground classes.
        pixel_mean: mean of the pixels, in the order of `input_format`.
        pixel_std: standard deviation of the pixels, in the order of `input_format`.
        padding_divisor: number of pixels to whose multiples an image itself is padded; None trains
            on the padding of the batch as well.
        input_format: order of the colors.

    Raises:
        InputError: If head and criterion do not fit.
        ValueError: If a part is of another kind.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        anchor_generator: nn.Module,
        box_transform: DeltaTransform | LogDistanceTransform,
        assigner: Assigner,
        criterion: Criterion,
        postprocessor: Postprocessor,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        padding_divisor: int | None = 32,
        input_format: str = "RGB",
    ):
        check_types(
            criterion=(criterion, Criterion),
            assigner=(assigner, Assigner),
            postprocessor=(postprocessor, Postprocessor),
        )
        super().__init__(backbone, head, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.anchor_generator, self.postprocessor = anchor_generator, postprocessor
        self.matcher = DenseMatcher(
            assigner,
            box_transform,
            num_classes=num_classes,
            padding_divisor=padding_divisor,
            num_logits=criterion.num_logits(num_classes),
        )
        self.criterion, self.num_classes = criterion, num_classes
        self.input_format = input_format
        has_background = getattr(head, "has_background", False)
        if has_background != (criterion.num_logits(num_classes) > num_classes):
            raise InputError(
                f"{type(criterion).__name__} "
                + ("has no" if has_background else "needs a")
                + f" background class, but model.head.has_background is {has_background}: choose "
                "a criterion of sigmoids or a ranking loss for heads without one, softmax for "
                "heads with one."
            )
        has_quality = getattr(head, "has_quality", False)
        if has_quality != (getattr(criterion, "quality", None) is not None):
            raise InputError(
                f"model.head.has_quality is {has_quality}, but model.criterion has "
                f"{'no' if has_quality else 'a'} quality branch to train: set it to "
                f"{not has_quality}."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return recipe_parts(cfg)

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: DenseOutputs,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Compute the criterion's losses over all levels and images at once."""
        anchors = self.anchor_generator(features)
        matched, _ = self.matcher(anchors, predictions, gt_instances)
        output = self.criterion(matched)
        log_metrics("head", output)
        return output.losses

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: DenseOutputs
    ) -> list[Instances]:
        """Detect objects in each image, boxes in pixels of the network's input."""
        return self.postprocessor.detect(
            self.anchor_generator(features),
            self.matcher.rows(predictions),
            predict_probs=self.criterion.predict_probs,
            decode=self.matcher.box_transform.apply_deltas,
            image_sizes=images.image_sizes,
        )
