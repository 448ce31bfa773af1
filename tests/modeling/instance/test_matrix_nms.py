"""Points-NMS and Matrix NMS: worked examples and edges."""

import pytest
import torch

from brloss_d2.modeling import MatrixNMS
from brloss_d2.modeling.instance import points_nms


def masks() -> torch.Tensor:
    """Of 8 x 8 pixels; the fourth equals the first."""
    found = torch.zeros(5, 8, 8, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(
        found, [(0, 4, 0, 4), (0, 4, 1, 5), (1, 5, 0, 4), (0, 4, 0, 4), (0, 2, 0, 4)], strict=True
    ):
        mask[top:bottom, left:right] = True
    return found


SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])


def test_points_nms():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.2, 0.3], [0.3, 0.9, 0.8]])
    expected = torch.tensor([[0.1, 0.5, 0], [0.6, 0, 0], [0, 0.9, 0]])
    assert torch.equal(points_nms(scores[None])[0], expected)
    assert torch.equal(points_nms(scores.expand(2, 3, 3, 3))[1, 2], expected)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("gaussian", [0.9, 0.389402, 0.340727, 0.6, 0.303265]),
        ("linear", [0.9, 0.32, 0.28, 0.6, 0.25]),
    ],
)
def test_matrix_nms(kernel, expected):
    lowered = MatrixNMS(kernel=kernel, sigma=2.0)(masks(), torch.tensor([0, 0, 0, 1, 0]), SCORES)
    torch.testing.assert_close(lowered, torch.tensor(expected), rtol=0, atol=5e-7)


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_copies_of_a_mask(kernel):
    """The linear form of the published code divides 0 by 0 from the third copy on."""
    copies = masks()[:1].expand(4, -1, -1)
    classes = torch.zeros(4, dtype=torch.long)
    lowered = MatrixNMS(kernel=kernel)(copies, classes, SCORES[:4])
    factor = 0.0 if kernel == "linear" else torch.exp(torch.tensor(-2.0))
    torch.testing.assert_close(lowered[1:], SCORES[1:4] * factor)


def test_nothing():
    lowered = MatrixNMS()(masks()[:0], torch.zeros(0, dtype=torch.long), SCORES[:0])
    assert lowered.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kernel": "cubic"}, "kernel must be one of"), ({"sigma": 0.0}, "sigma must be .* > 0")],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        MatrixNMS(**options)
