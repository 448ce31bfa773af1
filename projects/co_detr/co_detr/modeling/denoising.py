"""Contrastive denoising queries: objects with noise, which the decoder has to restore.

DN-DETR (Li et al., CVPR 2022) and DINO (Zhang et al., ICLR 2023, section 3.3). Every object is
repeated in G groups, in each as a positive query with little noise and as a negative one with more.

Shape letters: N images, M objects of the image with the most of them, G groups, P = 2 * M * G slots
per image, R = 2 * G * (number of all objects) noisy rows, Q further queries, K classes, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.losses.base import check_numbers
from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid
from brloss_d2.projects.co_detr.modeling.boxes import (
    centers_and_sizes,
    corners,
    image_scales,
    relative_boxes,
)
from brloss_d2.projects.co_detr.modeling.decoder import Queries
from brloss_d2.utils.devices import upload


@dataclass(frozen=True)
class Noise:
    """Random numbers of the noisy rows, in the order repetition, image, object.

    Attributes:
        flipped: (R,) bool, True for rows whose class is drawn again.
        new_labels: (number of flipped rows,) int64 classes in 0..K-1.
        signs: (R, 4) directions in which corners move, -1 or 1.
        sizes: (R, 4) lengths of the moves in half widths and heights, in [0, 1).
    """

    flipped: Tensor
    new_labels: Tensor
    signs: Tensor
    sizes: Tensor


@dataclass(frozen=True)
class NoisyQueries:
    """Denoising queries of a batch with their targets.

    Attributes:
        queries: (N, P) queries; slots without an object have zeros as content and the box
            (0.5, 0.5, 0.5, 0.5).
        labels: (N, P) int64 classes in 0..K-1, K for negatives and slots without an object.
        gt_boxes: (N, P, 4) XYXY in pixels; zeros for background.
        foreground: int64 positions of the positives in the N * P labels, ascending.
        num_groups: number of groups G.
    """

    queries: Queries
    labels: Tensor
    gt_boxes: Tensor
    foreground: Tensor
    num_groups: int

    def before(self, queries: Queries) -> Queries:
        """Put the denoising queries before others, which must not see them.

        Args:
            queries: (N, Q) queries without positions.

        Returns:
            (N, P + Q) queries. Their mask lets a group see itself and the others.
        """
        noisy, count = self.queries, queries.content.shape[1]
        slots = noisy.content.shape[1]
        group = torch.arange(slots, device=noisy.content.device) // max(slots // self.num_groups, 1)
        # Only their own group sees denoising queries; the others are no group of theirs.
        owner = torch.cat([group, group.new_full((count,), -1)])
        mask = (owner[:, None] != owner) & (owner >= 0)
        return Queries(
            content=torch.cat([noisy.content, queries.content], 1),
            position=None,
            references=torch.cat([noisy.references, queries.references], 1),
            mask=mask,
        )


class DenoisingQueries(nn.Module):
    """Queries of noisy objects, with an embedding of the classes as content.

    The number of groups depends on the image with the most objects: the queries of an image are not
    independent of the other images of the batch.

    Args:
        num_classes: number of classes K.
        dim: channels C.
        num_queries: number of positive queries of the image with the most objects, about: there is
            at least one group.
        label_noise: probability, in [0, 1], that a class is drawn again, possibly the same.
        box_noise: largest move of a corner of a positive query, in half widths and heights; the
            corners of a negative one move once to twice as far.
        reference_eps: smallest size of a noisy box, relative to the image; corners may cross.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        num_queries: int = 100,
        label_noise: float = 0.25,
        box_noise: float = 1.0,
        reference_eps: float = 1e-3,
    ) -> None:
        super().__init__()
        check_numbers(">= 1", num_queries=num_queries)
        check_numbers("in [0, 1]", label_noise=label_noise)
        check_numbers(">= 0", box_noise=box_noise)
        check_numbers("> 0", reference_eps=reference_eps)
        self.num_queries, self.label_noise = num_queries, label_noise
        self.box_noise, self.reference_eps = box_noise, reference_eps
        self.label_embedding = nn.Embedding(num_classes, dim)

    def forward(self, objects: Sequence[Instances], noise: Noise | None = None) -> NoisyQueries:
        """Make queries of the objects of a batch; none if it has no objects.

        Args:
            objects: objects per image, with `gt_boxes` and `gt_classes`.
            noise: random numbers of the rows; None draws them.
        """
        counts, num_classes = [len(x) for x in objects], self.label_embedding.num_embeddings
        groups = num_groups(max(counts), self.num_queries)
        number, slot, negative = _layout(counts, groups)
        if noise is None:
            noise = draw_noise(len(slot), num_classes, self.label_noise)
        classes = torch.cat([x.gt_classes for x in objects])
        gt_boxes = Boxes.cat([x.gt_boxes for x in objects]).tensor
        sizes = [x.image_size for x in objects for _ in range(len(x))]

        # The host knows where all of them go, so that nothing waits for a GPU.
        device = classes.device
        foreground, order = slot[~negative].sort()
        flipped = upload(noise.flipped.nonzero().squeeze(1), device)
        foreground, positive = upload(torch.stack([foreground, number[~negative][order]]), device)
        number, slot = upload(torch.stack([number, slot]), device)

        labels = classes[number].index_copy(0, flipped, upload(noise.new_labels, device))
        relative = relative_boxes(gt_boxes, image_scales(sizes, gt_boxes))[number]
        boxes = move_corners(relative, noise, negative, self.box_noise)
        references = inverse_sigmoid(boxes, self.reference_eps).sigmoid()
        embedded = self.label_embedding(labels)

        def spread(x: Tensor, at: Tensor, fill: float) -> Tensor:
            shape = (len(objects), 2 * groups * max(counts), *x.shape[1:])
            return x.new_full(shape, fill).flatten(0, 1).index_copy(0, at, x).view(shape)

        return NoisyQueries(
            queries=Queries(
                content=spread(embedded, slot, 0.0),
                position=None,
                references=spread(references, slot, 0.5),
            ),
            labels=spread(classes[positive], foreground, num_classes),
            gt_boxes=spread(gt_boxes[positive], foreground, 0.0),
            foreground=foreground,
            num_groups=groups,
        )


def num_groups(num_objects: int, num_queries: int) -> int:
    """Return the number of groups G of a batch.

    Args:
        num_objects: number of objects of the image with the most of them.
        num_queries: number of positive queries to stay below, if one group does.
    """
    return max(1, num_queries // num_objects) if num_objects else 1


def draw_noise(
    num_rows: int, num_classes: int, label_noise: float, generator: torch.Generator | None = None
) -> Noise:
    """Draw the noise of all rows, on the CPU: one seed gives the same queries on every device.

    Args:
        num_rows: number of noisy rows R.
        num_classes: number of classes K.
        label_noise: probability that the class of a row is drawn again.
        generator: random generator on the CPU; None is the default one.
    """
    flipped = torch.rand(num_rows, generator=generator) < label_noise
    count = int(flipped.sum())
    return Noise(
        flipped=flipped,
        new_labels=torch.randint(num_classes, (count,), generator=generator),
        signs=torch.randint(2, (num_rows, 4), generator=generator) * 2.0 - 1,
        sizes=torch.rand(num_rows, 4, generator=generator),
    )


def move_corners(boxes: Tensor, noise: Noise, negative: Tensor, box_noise: float) -> Tensor:
    """Move the corners of boxes, within the image.

    Args:
        boxes: (R, 4) cxcywh relative to the image.
        noise: random numbers of the rows.
        negative: (R,) bool on the CPU, True for rows that move by a half width or height more.
        box_noise: factor of all moves.

    Returns:
        (R, 4) cxcywh relative to the image; sizes are negative where corners have crossed.
    """
    halves = boxes[:, 2:].repeat(1, 2) / 2
    moves = upload(noise.signs * (noise.sizes + negative[:, None]), boxes.device)
    moved = corners(boxes) + moves * halves * box_noise
    return centers_and_sizes(moved.clamp(0, 1))


def _layout(counts: list[int], groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out the noisy rows of a batch, in the order of `Noise`, on the CPU.

    Args:
        counts: number of objects per image.
        groups: number of groups G.

    Returns:
        (R,) int64 object of each row, numbered through all images, its (R,) int64 slot in the N * P
        slots, and (R,) whether it is a negative: each second repetition.
    """
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    within = torch.cat([torch.arange(n) for n in counts])
    repetition = torch.arange(2 * groups)[:, None]
    slot = (image * 2 * groups + repetition) * max(counts) + within
    number = torch.arange(len(image)).expand_as(slot)
    negative = (repetition % 2 == 1).expand_as(slot)
    return number.flatten(), slot.flatten(), negative.flatten()
