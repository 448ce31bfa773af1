"""Contrastive denoising queries: objects with noise, which the decoder has to restore.

DN-DETR (Li et al., CVPR 2022) and DINO (Zhang et al., ICLR 2023, section 3.3). Every object is
repeated in G groups, in each as a positive query with little noise and as a negative one with more.

Shape letters: N images, M objects of the image with the most of them, G groups, P = 2 * M * G slots
per image, R = 2 * G * (number of all objects) noisy rows, Q further queries, K classes, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from brloss_d2.losses.base import check_numbers
from brloss_d2.projects.co_detr.layers.position import inverse_sigmoid
from brloss_d2.projects.co_detr.modeling.boxes import relative_boxes
from brloss_d2.projects.co_detr.modeling.decoder import Queries


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
        num_groups: number of groups G.
    """

    queries: Queries
    labels: Tensor
    gt_boxes: Tensor
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
        most = max(len(x) for x in objects)
        groups = num_groups(most, self.num_queries)
        rows = _Rows.build(objects, most, repetitions=2 * groups)
        num_classes = self.label_embedding.num_embeddings
        if noise is None:
            noise = draw_noise(len(rows.labels), num_classes, self.label_noise)
        flipped = noise.flipped.nonzero().squeeze(1).to(rows.labels.device)
        noisy_labels = rows.labels.index_copy(0, flipped, noise.new_labels.to(rows.labels))
        boxes = move_corners(rows.boxes, noise, rows.negative, self.box_noise)
        references = inverse_sigmoid(boxes, self.reference_eps).sigmoid()

        at, shape = (rows.image, rows.slot), (len(objects), 2 * groups * most)
        embedded = self.label_embedding(noisy_labels)
        content = embedded.new_zeros((*shape, embedded.shape[1])).index_put(at, embedded)
        background = torch.full_like(rows.labels, num_classes)
        labels = torch.where(rows.negative, background, rows.labels)
        return NoisyQueries(
            queries=Queries(
                content=content,
                position=None,
                references=references.new_full((*shape, 4), 0.5).index_put(at, references),
            ),
            labels=labels.new_full(shape, num_classes).index_put(at, labels),
            gt_boxes=rows.gt_boxes.new_zeros((*shape, 4)).index_put(at, rows.gt_boxes),
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
        negative: (R,) bool, True for rows that move by a half width or height more.
        box_noise: factor of all moves.

    Returns:
        (R, 4) cxcywh relative to the image; sizes are negative where corners have crossed.
    """
    halves = boxes[:, 2:].repeat(1, 2) / 2
    moves = noise.signs.to(boxes) * (noise.sizes.to(boxes) + negative[:, None])
    corners = box_convert(boxes, "cxcywh", "xyxy") + moves * halves * box_noise
    return box_convert(corners.clamp(0, 1), "xyxy", "cxcywh")


@dataclass(frozen=True)
class _Rows:
    """Repeated objects of a batch, in the order of `Noise`.

    Attributes:
        labels: (R,) int64 classes.
        boxes: (R, 4) cxcywh relative to the image.
        gt_boxes: (R, 4) XYXY in pixels; zeros for negative rows.
        negative: (R,) bool, True for the second repetition of each group.
        image: (R,) int64 index of the image.
        slot: (R,) int64 index of the query.
    """

    labels: Tensor
    boxes: Tensor
    gt_boxes: Tensor
    negative: Tensor
    image: Tensor
    slot: Tensor

    @classmethod
    def build(cls, objects: Sequence[Instances], most: int, repetitions: int) -> "_Rows":
        device = objects[0].gt_classes.device
        counts = torch.tensor([len(x) for x in objects])
        image = torch.arange(len(objects)).repeat_interleave(counts)
        number = torch.cat([torch.arange(n) for n in counts.tolist()])
        repetition = torch.arange(repetitions).repeat_interleave(len(image))
        negative = (repetition % 2 == 1).to(device)
        boxes = torch.cat([relative_boxes(x.gt_boxes.tensor, x.image_size) for x in objects])
        gt_boxes = torch.cat([x.gt_boxes.tensor for x in objects]).repeat(repetitions, 1)
        return cls(
            labels=torch.cat([x.gt_classes for x in objects]).repeat(repetitions),
            boxes=boxes.repeat(repetitions, 1),
            gt_boxes=gt_boxes.masked_fill(negative[:, None], 0.0),
            negative=negative,
            image=image.repeat(repetitions).to(device),
            slot=(repetition * most + number.repeat(repetitions)).to(device),
        )
