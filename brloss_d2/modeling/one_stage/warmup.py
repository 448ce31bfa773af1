"""Another assignment and other losses for the first iterations of a training."""

from collections.abc import Sequence

from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from brloss_d2.criteria import Criterion, CriterionOutput, MatchedPredictions
from brloss_d2.losses.base import check_numbers, check_types
from brloss_d2.modeling.one_stage.assigners import AnchorPredictions, Assigner, LevelAnchors


class WarmupAssigner(Assigner):
    """Assign by one rule at first, and by another after that.

    TOOD (Feng et al., ICCV 2021) assigns as ATSS for 4 of 12 epochs, because
    `TaskAlignedAssigner` needs boxes and scores that have learned something.

    The iteration is that of detectron2's event storage, which a resumed training continues. Without
    one, as in evaluation, warm-up is over.

    Args:
        warmup: rule of the first iterations.
        main: rule of all others.
        iterations: length of the warm-up, >= 0.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(self, warmup: Assigner, main: Assigner, *, iterations: int):
        check_types(warmup=(warmup, Assigner), main=(main, Assigner), iterations=(iterations, int))
        check_numbers(">= 0", iterations=iterations)
        self.warmup, self.main, self.iterations = warmup, main, iterations

    @property
    def needs_predictions(self) -> bool:  # type: ignore[override]
        """Whether the assignment of this iteration depends on the predictions of the head."""
        return self._current().needs_predictions

    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`."""
        return self._current()(anchors, objects, predictions)

    def of_images(
        self,
        anchors: Sequence[LevelAnchors],
        objects: Sequence[Instances],
        predictions: Sequence[AnchorPredictions | None],
    ) -> list[Tensor]:
        """Assign the anchors of each image of a batch; see `Assigner`."""
        return self._current().of_images(anchors, objects, predictions)

    def _current(self) -> Assigner:
        return self.warmup if _in_warmup(self.iterations) else self.main


class WarmupCriterion(Criterion):
    """Train with one criterion at first, and with another after that.

    The iteration is that of detectron2's event storage, as for `WarmupAssigner`.

    Args:
        warmup: criterion of the first iterations, with sigmoids and without a quality branch.
        main: criterion of all others, which also says what the logits mean.
        iterations: length of the warm-up, >= 0.

    Raises:
        ValueError: If an argument is not as described.
    """

    def __init__(self, warmup: Criterion, main: Criterion, *, iterations: int):
        super().__init__()
        check_types(
            warmup=(warmup, Criterion), main=(main, Criterion), iterations=(iterations, int)
        )
        check_numbers(">= 0", iterations=iterations)
        if any(getattr(part, "quality", None) is not None for part in (warmup, main)):
            raise ValueError("a quality branch would be trained for a part of the training only")
        self.warmup, self.main, self.iterations = warmup, main, iterations

    def num_logits(self, num_classes: int) -> int:
        """Return the number of class outputs that a head needs for `num_classes` classes."""
        return self.main.num_logits(num_classes)

    def predict_probs(self, logits: Tensor) -> Tensor:
        """Turn logits (R, `num_logits`) into foreground probabilities (R, K) in [0, 1]."""
        return self.main.predict_probs(logits)

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Compute the losses of this iteration's criterion."""
        return self.warmup(matched) if _in_warmup(self.iterations) else self.main(matched)


def _in_warmup(iterations: int) -> bool:
    return has_event_storage() and get_event_storage().iter < iterations
