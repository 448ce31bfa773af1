"""Query head: proposals, refinement of boxes, customized queries, initialization."""

import math

import pytest
import torch

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.modeling.decoder import DeformableDecoder, Queries
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder
from brloss_d2.projects.co_detr.modeling.query_head import CoDeformableHead, proposal_logits
from tests.projects.co_detr.golden_query_head import CLASSES, small_query_head

BATCH = (75, 101)
SIZES = [(75, 101), (60, 80)]
STRIDES = (8, 16, 32, 64)
DIM = 32


def maps(batch=BATCH, images=2, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [[math.ceil(n / stride) for n in batch] for stride in STRIDES]
    return [torch.randn(images, DIM, *shape, generator=generator) for shape in shapes]


def geometry(batch=BATCH, sizes=SIZES) -> FeatureGeometry:
    return FeatureGeometry.build(maps(batch, len(sizes)), sizes, batch)


def memory(batch=BATCH, images=2, seed=0) -> torch.Tensor:
    return torch.cat([x.flatten(2).mT for x in maps(batch, images, seed)], 1)


def random_head(seed: int = 0, **settings) -> CoDeformableHead:
    """Query head with random weights only; a new one predicts steps of zero."""
    head = small_query_head(**settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return head


def random_queries(count: int = 11, images: int = 2) -> Queries:
    generator = torch.Generator().manual_seed(5)
    content, position = (torch.randn(images, count, DIM, generator=generator) for _ in range(2))
    return Queries(content, position, torch.rand(images, count, 4, generator=generator))


class TestProposals:
    def test_boxes_of_the_cells(self):
        """A cell is padding if its pixel of nearest interpolation is."""
        expected = []
        for height, width in SIZES:
            for level, stride in enumerate(STRIDES):
                rows, columns = (math.ceil(n / stride) for n in BATCH)
                valid_rows = sum(int(y * BATCH[0] / rows) < height for y in range(rows))
                valid_columns = sum(int(x * BATCH[1] / columns) < width for x in range(columns))
                for y in range(rows):
                    for x in range(columns):
                        box = [(x + 0.5) / valid_columns, (y + 0.5) / valid_rows]
                        box += [0.05 * 2**level] * 2
                        padded = y >= valid_rows or x >= valid_columns
                        usable = not padded and all(0.01 < n < 0.99 for n in box)
                        expected += [math.log(n / (1 - n)) if usable else math.inf for n in box]
        found = proposal_logits(geometry())
        torch.testing.assert_close(found, torch.tensor(expected).view_as(found))

    def test_cells_next_to_the_border(self):
        """Of 64 columns, the outer two have their centers within 1 % of the border."""
        boxes = proposal_logits(geometry((64, 512), [(64, 512)]))[0, : 8 * 64].view(8, 64, 4)
        assert boxes[:, [0, -1]].isinf().all() and boxes[:, 1:-1].isfinite().all()

    def test_unusable_cells(self):
        """Their boxes are (1, 1, 1, 1) without gradient, whatever the memory holds there."""
        head, where = random_head(), geometry()
        unusable = proposal_logits(where).isinf().any(-1)
        cells = memory().requires_grad_()
        proposals = head.propose(cells, where)
        assert (proposals.boxes[unusable] == 1).all()
        assert proposals.logits[unusable].unique(dim=0).shape[0] == 1
        proposals.boxes.retain_grad()
        (proposals.boxes.square().sum() + proposals.logits.sum()).backward()
        assert (cells.grad[unusable] == 0).all() and cells.grad.isfinite().all()
        assert cells.grad[~unusable].abs().sum() > 0
        for parameter in head.box_branches[-1].parameters():
            assert parameter.grad.isfinite().all()

    def test_only_the_first_class_selects(self):
        head, where = random_head(), geometry()
        before = head.propose(memory(), where)
        with torch.no_grad():
            head.class_branches[-1].weight[1:].normal_()
        after = head.propose(memory(), where)
        assert not torch.equal(before.logits, after.logits)
        assert torch.equal(before.topk_index, after.topk_index)
        assert torch.equal(before.queries.references, after.queries.references)
        best = before.logits[..., 0].gather(1, before.topk_index)
        assert (best.diff() <= 0).all() and (
            best[:, -1] >= before.logits[..., 0].median(1)[0]
        ).all()

    def test_more_queries_than_cells(self):
        head, where = random_head(num_queries=500), geometry()
        cells = memory()
        proposals = head.propose(cells, where)
        count = cells.shape[1]
        assert proposals.topk_index.sort(1).values.tolist() == [list(range(count))] * 2
        assert torch.equal(proposals.queries.content[1], head.content.weight[:count])
        decoded = head.decode(proposals.queries, cells, where)
        assert decoded.logits.shape == (3, 2, count, CLASSES)
        decoded.boxes.sum().backward()
        assert head.content.weight.grad.shape == (500, DIM)

    def test_references_are_constant(self):
        head, where = random_head(), geometry()
        proposals = head.propose(memory(), where)
        assert not proposals.queries.references.requires_grad
        assert proposals.boxes.requires_grad
        rows = proposals.topk_index[..., None].expand(-1, -1, 4)
        torch.testing.assert_close(proposals.queries.references, proposals.boxes.gather(1, rows))


class TestDecoder:
    def test_new_heads_predict_their_references(self):
        head, queries = small_query_head(), random_queries()
        boxes = head.decode(queries, memory(), geometry()).boxes
        torch.testing.assert_close(boxes, queries.references.expand(3, -1, -1, -1))

    def test_inputs_of_the_layers(self):
        """Boxes are relative to the padded maps of each level, and positions never change."""
        head, queries, where = random_head(), random_queries(), geometry()
        calls = []
        for layer in head.decoder.layers:
            layer.register_forward_pre_hook(lambda _, args: calls.append(args))
        boxes = head.decode(queries, memory(), where).boxes
        assert len(calls) == 3
        for call, start in zip(calls, (queries.references, *boxes[:2]), strict=True):
            _, position, _, references, *_ = call
            assert torch.equal(position, queries.position)
            for level in range(4):
                expected = start * where.valid_ratios[:, None, level].repeat(1, 1, 2)
                torch.testing.assert_close(references[:, :, level], expected)

    def test_order_of_queries(self):
        head, queries = random_head(), random_queries()
        order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
        tensors = (queries.content, queries.position, queries.references)
        moved = Queries(*(x[:, order] for x in tensors))
        before, after = (head.decode(q, memory(), geometry()) for q in (queries, moved))
        for name in ("logits", "boxes", "hidden"):
            expected = getattr(before, name)[:, :, order]
            torch.testing.assert_close(getattr(after, name), expected, rtol=1e-4, atol=1e-5)

    def test_looks_forward_twice(self):
        """Boxes of a layer train its own box branch and that of the layer before, no others."""
        head, where = random_head(), geometry()
        for layer in range(3):
            queries = head.propose(memory(), where).queries
            head.zero_grad()
            head.decode(queries, memory(), where).boxes[layer].sum().backward()
            trained = [
                any(p.grad is not None and p.grad.abs().sum() > 0 for p in branch.parameters())
                for branch in head.box_branches
            ]
            assert trained == [layer - 1 <= d <= layer for d in range(3)] + [False]
            assert head.decoder.layers[0].ffn.linear1.weight.grad.abs().sum() > 0

    def test_sampling_locations_have_no_gradient_to_earlier_boxes(self):
        """Logits of the last layer have no gradient to any box branch."""
        head, where = random_head(), geometry()
        queries = head.propose(memory(), where).queries
        head.decode(queries, memory(), where).logits[-1].sum().backward()
        assert all(p.grad is None for branch in head.box_branches for p in branch.parameters())

    def test_boxes_are_the_references_of_the_next_layer(self):
        """Without its first layer, a head predicts the same from the boxes of that layer."""
        head, queries, where = random_head(), random_queries(), geometry()
        whole = head.decode(queries, memory(), where)
        rest = random_head()
        rest.decoder.layers = rest.decoder.layers[1:]
        rest.class_branches, rest.box_branches = rest.class_branches[1:], rest.box_branches[1:]
        started = Queries(whole.hidden[0], queries.position, whole.boxes[0])
        torch.testing.assert_close(
            rest.decode(started, memory(), where).boxes, whole.boxes[1:], rtol=1e-5, atol=1e-6
        )

    def test_padding_does_not_matter(self):
        """Noise in the padding of the maps changes neither other cells nor the decoder."""
        head, where = random_head(), geometry()
        noisy = [
            torch.where(mask[:, None], torch.randn(x.shape), x)
            for x, mask in zip(maps(), where.masks, strict=True)
        ]
        found = []
        for features in (maps(), noisy):
            cells = head.encoder(features, where)
            decoded = head.decode(head.propose(cells, where).queries, cells, where)
            found.append((cells[~where.padding], decoded.logits, decoded.boxes))
        assert not torch.equal(maps()[0], noisy[0])
        for clean, other in zip(*found, strict=True):
            assert torch.equal(clean, other)


def test_halves_of_encoded_boxes():
    """The first half is the position, the second a part of the content of customized queries."""
    head = small_query_head()
    encoders = [(head.pos_trans, None), *((e.pos_trans, e) for e in head.custom.embeddings)]
    with torch.no_grad():
        head.custom.head_bias.zero_()
        for linear, embedding in encoders:
            linear.weight.zero_()
            linear.bias.copy_(torch.tensor([0.0, 1.0]).repeat_interleave(DIM))
            if embedding is not None:
                embedding.feat_norm.bias.fill_(2)
                embedding.feat_norm.weight.zero_()
    boxes, features = torch.rand(1, 4, 4), torch.rand(1, 4, DIM)
    expected = torch.ones(1, 4, DIM)
    for number in range(2):
        found = head.custom(boxes, features, number)
        torch.testing.assert_close(found.position, -expected, rtol=1e-4, atol=0)
        torch.testing.assert_close(found.content, 3 * expected, rtol=1e-4, atol=0)
    position = head.propose(memory(), geometry()).queries.position
    torch.testing.assert_close(position, -torch.ones_like(position), rtol=1e-4, atol=0)


class TestCustomQueries:
    BOXES = torch.tensor([[[0.5, 0.4, 0.3, 0.2], [0.0, 0.0, 0.0, 0.0], [-0.1, 1.2, 3.0, 0.5]]])
    FEATURES = torch.linspace(-1, 1, 3 * DIM).view(1, 3, DIM)

    def test_number_of_a_head_shifts_positions_alone(self):
        head = random_head()
        before = head.custom(self.BOXES, self.FEATURES, 1)
        with torch.no_grad():
            head.custom.head_bias[0] += 5
            head.custom.head_bias[1] += 0.5
        after = head.custom(self.BOXES, self.FEATURES, 1)
        torch.testing.assert_close(after.position, before.position + 0.5)
        assert torch.equal(after.content, before.content)

    def test_boxes_are_clamped_where_they_are_encoded_only(self):
        head = random_head()
        found = head.custom(self.BOXES, self.FEATURES, 0)
        assert torch.equal(found.references, self.BOXES)
        inside = head.custom(self.BOXES.clamp(1e-5, 1 - 1e-5), self.FEATURES, 0)
        torch.testing.assert_close(found.position, inside.position)
        torch.testing.assert_close(found.content, inside.content)

    def test_gradients(self):
        """Features have a gradient, boxes have none."""
        head, where = random_head(), geometry((75, 101), [(75, 101)])
        boxes, features = (
            self.BOXES.clone().requires_grad_(),
            self.FEATURES.clone().requires_grad_(),
        )
        queries = head.custom(boxes, features, 0)
        head.decode(queries, memory(images=1), where).logits.sum().backward()
        assert boxes.grad is None and (features.grad.abs().sum(-1) > 0).all()

    def test_heads_differ(self):
        head = random_head()
        contents = [head.custom(self.BOXES, self.FEATURES, k).content for k in range(2)]
        assert not torch.allclose(*contents)

    def test_a_number_for_each_channel(self):
        state = {"head_bias": torch.arange(2.0 * DIM).view(2, DIM)}
        head = random_head(head_bias_dim=DIM)
        head.custom.load_state_dict(state, strict=False)
        position = head.custom(self.BOXES, self.FEATURES, 1).position
        head.custom.load_state_dict({"head_bias": torch.zeros(2, DIM)}, strict=False)
        shift = position - head.custom(self.BOXES, self.FEATURES, 1).position
        torch.testing.assert_close(shift, state["head_bias"][1].expand_as(shift))

    def test_a_bias_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="head_bias_dim must be 1 or the 32 channels, got 2"):
            small_query_head(head_bias_dim=2)


def test_pyramid():
    head, batch = random_head(), (200, 300)
    found = head.pyramid(memory(batch), geometry(batch, [batch, (150, 300)]))
    assert len(found) == 5 and all(level.is_contiguous() for level in found)
    for level, expected in zip(found[:4], maps(batch), strict=True):
        assert torch.equal(level, expected)
    torch.testing.assert_close(found[4], head.downsample(maps(batch)[3]))
    assert found[4].shape[2:] == (2, 3)


def test_every_parameter_has_a_gradient():
    head, where = random_head(), geometry()
    cells = head.encoder(maps(), where)
    proposals = head.propose(cells, where)
    total = proposals.logits.sum() + proposals.boxes.sum()
    boxes = torch.rand(2, 9, 4)
    custom = [head.custom(boxes, cells[:, :9], k) for k in range(2)]
    for queries in (proposals.queries, *custom):
        decoded = head.decode(queries, cells, where)
        total = total + decoded.logits.sum() + decoded.boxes.sum()
    (total + sum(x.sum() for x in head.pyramid(cells, where))).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_initialization():
    head = small_query_head()
    state = head.state_dict()
    for name in ("enc_output", "pos_trans", "custom.embeddings.1.feat_trans"):
        weight = state[f"{name}.weight"]
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound, name
    assert state["custom.head_bias"].shape == (2, 1)
    assert 0 < state["custom.head_bias"].abs().max() <= 2**0.5
    for layer in range(4):
        bias = state[f"class_branches.{layer}.bias"]
        torch.testing.assert_close(bias.sigmoid(), torch.full((CLASSES,), 0.01))
        for part in ("weight", "bias"):
            assert (state[f"box_branches.{layer}.layers.2.{part}"] == 0).all()
    assert 0.8 < state["content.weight"].std() < 1.2


def test_names_and_numbers_of_parameters():
    """Published size; names decide on learning rates: only true offsets are "sampling_offsets"."""
    with torch.device("meta"):
        head = CoDeformableHead(
            encoder=DeformableEncoder(), decoder=DeformableDecoder(), num_classes=80
        )
    counts = {name: parameter.numel() for name, parameter in head.named_parameters()}

    def count(*prefixes: str) -> int:
        return sum(n for name, n in counts.items() if name.startswith(prefixes))

    assert count("decoder.") == 6 * 1_545_856
    assert count("class_branches.", "box_branches.", "content.") == 1_149_004
    assert count("custom.") == 659_970
    assert count("downsample.") == 590_592
    assert count("enc_output", "pos_trans") == 256 * 257 + 2 * 256 + 512 * 513 + 2 * 512
    slow = [name for name in counts if "sampling_offsets" in name]
    assert len(slow) == 2 * 12 and not any("backbone" in name for name in counts)
