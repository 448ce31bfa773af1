"""The auxiliary semantic head of the YOLACT baseline."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, Instances

from brloss_d2.modeling import SemanticHead

SIZE = (4, 8)


def objects(*classes: int) -> Instances:
    """Objects in columns of 2 pixels, from the left."""
    masks = torch.zeros(len(classes), *SIZE, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[:, 2 * i : 2 * i + 2] = True
    found = Instances(SIZE, gt_boxes=Boxes(torch.zeros(len(classes), 4)))
    found.gt_classes, found.gt_masks = torch.tensor(classes).long(), BitMasks(masks)
    return found


def head(**options) -> SemanticHead:
    torch.manual_seed(0)
    return SemanticHead(in_channels=3, num_classes=3, **options)


def test_targets_are_unions_of_masks():
    targets = head().targets(objects(0, 2, 2), SIZE, (2, 4))
    expected = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]
    assert targets[:, 0].tolist() == targets[:, 1].tolist() == expected


def test_published_shift():
    """Channel 2 has the object of class 0, channel 0 that of class 1, channel 1 that of class 2."""
    targets = head(published_shift=True).targets(objects(0, 1, 2), SIZE, (2, 4))
    assert targets[:, 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]


def test_loss_is_summed_over_classes_and_averaged_over_cells():
    net, x = head(loss_weight=0.5), torch.rand(2, 3, 2, 4)
    given = [objects(0, 2), objects()]
    loss = net.losses(x, given, SIZE)["loss_semantic"]
    targets = net.targets(given[0], SIZE, (2, 4))
    entropy = F.binary_cross_entropy_with_logits(net(x)[0], targets, reduction="sum")
    # The image without objects is counted, but not trained on.
    torch.testing.assert_close(loss, 0.5 * entropy / (2 * 2 * 4))


def test_no_objects():
    net, without = head(), objects()
    without.remove("gt_masks")  # as detectron2's mapper leaves it
    loss = net.losses(torch.rand(1, 3, 2, 4), [without], SIZE)["loss_semantic"]
    loss.backward()
    assert loss == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in net.parameters())


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="loss_weight must be a finite number >= 0, got -1"):
        head(loss_weight=-1)
