"""Every criterion trains Cascade and Mask R-CNN on full, half-empty and empty batches."""

import pytest
import torch
import torch.distributed as dist
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from brloss_d2.errors import InputError
from brloss_d2.modeling import CriterionCascadeROIHeads, CriterionMaskHead, add_brloss_config
from brloss_d2.modeling.rcnn.mask_head import IndexedMasks
from tests.helpers.criteria import RCNN_CRITERIA, build_criterion
from tests.helpers.golden_rcnn import CLASSES, CONFIGS, shrink
from tests.helpers.programs import Programs
from tests.helpers.yaml_configs import small_rcnn

SIZE = (96, 128)
ARCHITECTURES = ("cascade", "mask")


def polygons(boxes: torch.Tensor) -> PolygonMasks:
    """A triangle in each box."""
    return PolygonMasks([[[x1, y1, x2, y1, x1, y2]] for x1, y1, x2, y2 in boxes.numpy()])


def bitmaps(boxes: torch.Tensor) -> BitMasks:
    if not len(boxes):
        return BitMasks(torch.zeros(0, *SIZE))
    return BitMasks.from_polygon_masks(polygons(boxes), *SIZE)


def inputs(*objects: int, masks=bitmaps, seed: int = 0) -> list[dict]:
    g = torch.Generator().manual_seed(seed)
    batch = []
    for count in objects:
        xy = torch.rand(count, 2, generator=g) * 40
        boxes = torch.cat([xy, xy + 20 + torch.rand(count, 2, generator=g) * 30], 1)
        instances = Instances(SIZE, gt_boxes=Boxes(boxes))
        instances.gt_classes = torch.randint(CLASSES, (count,), generator=g)
        if masks is not None:
            instances.gt_masks = masks(boxes)
        image = torch.randint(256, (3, *SIZE), generator=g, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    return batch


def detector(architecture: str, name: str):
    """The small detector with the criterion of that name, and the sampling it goes with."""
    kind = "ce" if name == "ce" else "brs"
    leaf = CONFIGS / f"coco/{architecture}_rcnn_R_50_FPN_{kind}_1x.py"
    cfg = LazyConfig.load(str(leaf)).model
    shrink(cfg)
    heads = cfg.roi_heads
    for part in [cfg.proposal_generator, *box_predictors(heads)]:
        del part.criterion
    cfg.proposal_generator.criterion = build_criterion(name, "rpn", pools_per_epoch=2)
    for predictor in box_predictors(heads):
        predictor.criterion = build_criterion(name, "roi", pools_per_epoch=2)
    if "mask_head" in heads:
        heads.mask_head.criterion = build_criterion(name, "mask")
    torch.manual_seed(0)
    return instantiate(cfg).train()


def box_predictors(heads):
    return heads.get("box_predictors", [heads.get("box_predictor")])


def step(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("name", RCNN_CRITERIA)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_step_of_any_batch(architecture, name):
    model = detector(architecture, name)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    keys = set()
    for objects in ((3, 2), (0, 2), (0, 0)):
        losses = step(model, inputs(*objects))
        keys.add(frozenset(losses))
        assert all(v.shape == () and v.isfinite() for v in losses.values())
        assert not [n for n, p in trainable.items() if p.grad is None]
        assert all(p.grad.isfinite().all() for p in trainable.values())
        if objects[1]:
            heads = {n: p for n, p in trainable.items() if n.startswith("roi_heads")}
            assert not [n for n, p in heads.items() if not p.grad.any()]
    assert len(keys) == 1  # the same names whatever the batch


def test_names_of_the_losses():
    rpn = {"loss_rpn_rank", "loss_rpn_sort", "loss_rpn_box_reg"}
    terms = ("loss_rank", "loss_sort", "loss_box_reg")
    cascade = {f"{term}_stage{k}" for term in terms for k in range(3)}
    assert step(detector("cascade", "rs"), inputs(2)).keys() == rpn | cascade
    assert step(detector("mask", "rs"), inputs(2)).keys() == rpn | {*terms, "loss_mask"}


@pytest.mark.parametrize("iteration", [0, 19, 39])
def test_metrics_are_logged_beside_the_losses(iteration):
    with EventStorage(iteration) as storage:
        detector("mask", "rs")(inputs(3, 2))
        assert "rpn/num_positives" in storage.latest()
    with EventStorage(iteration + 1) as storage:
        detector("mask", "rs")(inputs(3, 2))
        assert "rpn/num_positives" not in storage.latest(), "no wait for the device"


def test_metrics_of_all_heads_are_logged():
    with EventStorage() as storage:
        detector("cascade", "rs")(inputs(3, 2))
        detector("mask", "rs")(inputs(3, 2))
        latest = storage.latest()
    for head in ("rpn", "roi_head", "stage0/roi_head", "stage2/roi_head"):
        assert latest[f"{head}/num_positives"][0] > 0
        assert latest[f"{head}/pool_size"][0] > latest[f"{head}/num_positives"][0]
    assert latest["mask_head/mask_unbalanced"][0] > 0
    assert latest["mask_head/num_masks"][0] == latest["roi_head/num_positives"][0]


def test_mask_loss_takes_the_value_of_the_ranking():
    losses = step(detector("mask", "rs"), inputs(3, 2))
    expected = losses["loss_rank"] + losses["loss_sort"]
    torch.testing.assert_close(losses["loss_mask"], expected)


class TestMasks:
    @pytest.mark.parametrize("name", ["ce", "brs"])
    def test_polygons_train_as_bitmaps_do(self, name):
        model = detector("mask", name)
        torch.manual_seed(0)
        of_bitmaps = step(model, inputs(3, 2))
        torch.manual_seed(0)  # cross-entropy samples
        of_polygons = step(model, inputs(3, 2, masks=polygons))
        for key, value in of_bitmaps.items():
            torch.testing.assert_close(value, of_polygons[key], rtol=0.05, atol=0)
        assert step(model, inputs(0, 0, masks=polygons)).keys() == of_bitmaps.keys()

    @pytest.mark.parametrize("make", [bitmaps, polygons])
    def test_view_crops_like_a_copy(self, make):
        boxes = torch.tensor([[10.0, 10, 60, 70], [30, 5, 90, 80]])
        index = torch.tensor([1, 0, 0, 1, 1])
        regions = torch.tensor([[0.0, 0, 96, 96], [12, 9, 55, 71], [9, 9, 9, 9], [30, 5, 90, 80]])
        regions = torch.cat([regions, torch.tensor([[100.0, 90, 120, 96]])])
        masks = make(boxes)
        view = IndexedMasks(masks, index)
        copy = masks[index].crop_and_resize(regions, 28)
        assert torch.equal(view.crop_and_resize(regions, 28), copy)
        assert copy[0].any()
        kept = torch.tensor([False, True, False, True, True])
        assert torch.equal(view[kept].crop_and_resize(regions[kept], 28), copy[kept])
        assert len(view[kept]) == 3
        nothing = view[kept][:0].to("cpu")
        assert nothing.crop_and_resize(regions[:0], 28).shape == (0, 28, 28)

    def test_no_mask_is_copied(self, monkeypatch):
        def refuse(*_):
            raise AssertionError("masks were copied")

        batch = inputs(3, 2)
        monkeypatch.setattr(BitMasks, "__getitem__", refuse)
        step(detector("mask", "brs"), batch)

    def test_data_without_masks(self):
        with EventStorage(), pytest.raises(InputError, match="use_instance_mask=True"):
            detector("mask", "brs")(inputs(2, masks=None))

    def test_limit_keeps_regions_weights_and_targets_together(self):
        """Every training mask carries what its own region has, though only 4 of a pool remain."""
        model = detector("mask", "rs")
        heads = model.roi_heads
        heads.mask_head.criterion.max_masks = 4
        heads.mask_head.criterion.images_per_pool = 2
        seen = {}
        sample, losses = heads.mask_head.sample, heads.box_predictor.losses

        def spy_losses(predictions, proposals):
            seen["logits"] = predictions[0].detach()
            result = losses(predictions, proposals)
            seen["all"] = [p[:] for p in proposals]
            return result

        def spy_sample(foreground):
            seen["chosen"] = sample(foreground)
            return seen["chosen"]

        heads.box_predictor.losses, heads.mask_head.sample = spy_losses, spy_sample
        result = step(model, inputs(3, 2, 2, 1))
        kept = [len(x) for x in seen["chosen"]]
        assert (sum(kept[:2]), sum(kept[2:])) == (4, 4)
        assert any(kept[1::2])  # of the later images as well
        weights = seen["logits"].sigmoid().amax(1).split([len(p) for p in seen["all"]])
        for regions, chosen, weight in zip(seen["all"], seen["chosen"], weights, strict=True):
            for i in range(len(chosen)):
                same = regions.proposal_boxes.tensor == chosen.proposal_boxes.tensor[i]
                (row,) = same.all(1).nonzero()[:1, 0]
                assert chosen.box_weights[i] == weight[row]
                assert chosen.gt_classes[i] == regions.gt_classes[row] < CLASSES
                assert chosen.gt_masks.index[i] == regions.gt_masks.index[row]
        assert result["loss_mask"] > 0


class TestCascade:
    def stages(self, name: str, batch) -> list[list[Instances]]:
        model = detector("cascade", name)
        seen = []
        for predictor in model.roi_heads.box_predictor:

            def spy(predictions, proposals, losses=predictor.losses):
                seen.append(proposals)
                return losses(predictions, proposals)

            predictor.losses = spy
        step(model, batch)
        return seen

    def test_every_stage_has_the_ground_truth_once(self):
        batch = inputs(3, 2)
        seen = self.stages("brs", batch)
        assert len(seen) == 3
        for proposals in seen:
            for regions, image in zip(proposals, batch, strict=True):
                gt = image["instances"]
                added = regions[regions.is_gt]
                assert torch.equal(added.proposal_boxes.tensor, gt.gt_boxes.tensor)
                assert torch.equal(added.gt_classes, gt.gt_classes)
        counts = [[(~x.is_gt).sum().item() for x in proposals] for proposals in seen]
        assert counts[0] == counts[1] == counts[2]
        assert max(counts[0]) > 200  # nothing sampled away

    def test_thresholds_rise(self):
        for proposals, threshold in zip(
            self.stages("brs", inputs(3, 2)), (0.5, 0.6, 0.7), strict=True
        ):
            for regions in proposals:
                foreground = regions[regions.gt_classes < CLASSES]
                boxes, gt = foreground.proposal_boxes.tensor, foreground.gt_boxes.tensor
                overlap = (torch.minimum(boxes, gt)[:, 2:] - torch.maximum(boxes, gt)[:, :2]).prod(
                    1
                )
                union = foreground.proposal_boxes.area() + foreground.gt_boxes.area() - overlap
                assert (overlap / union > threshold - 1e-4).all()

    def test_cross_entropy_samples_in_every_stage(self):
        for proposals in self.stages("ce", inputs(3, 2)):
            for regions in proposals:
                assert len(regions) <= 512
                assert (regions.gt_classes < CLASSES).sum() <= 128

    def test_weights_of_the_stages(self):
        """Usual in the baseline: halved from stage to stage; equal under a ranking loss."""
        for name, weights in (("ce", [1, 0.5, 0.25]), ("brs", [1, 1, 1])):
            heads = detector("cascade", name).roi_heads
            assert [p.loss_weight for p in heads.box_predictor] == weights

    def test_boxes_must_be_those_of_all_classes(self):
        leaf = CONFIGS / "coco/cascade_rcnn_R_50_FPN_brs_1x.py"
        heads = LazyConfig.load(str(leaf)).model.roi_heads
        heads.box_predictors[1].cls_agnostic_bbox_reg = False
        with pytest.raises(InputError, match="stage 1 has 320 outputs: set its cls_agnostic"):
            instantiate(heads)

    def test_broken_stage_is_named(self):
        model = detector("cascade", "brs")
        torch.nn.init.constant_(model.roi_heads.box_predictor[1].bbox_pred.bias, float("nan"))
        with EventStorage(), pytest.raises(FloatingPointError, match="stage 1 are not finite"):
            model(inputs(2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pools_of_a_batch_are_batches_of_their_own(architecture):
    """As on several processes: losses and gradients are means over the pools."""
    model = detector(architecture, "brs")
    for module in model.modules():
        if hasattr(module, "images_per_pool"):
            module.images_per_pool = 2
    batch = inputs(3, 2, 1, 2)

    def run(images):
        losses = step(model, images)
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        return losses, gradients

    (losses, gradients), first, second = run(batch), run(batch[:2]), run(batch[2:])
    for key, value in losses.items():
        mean = (first[0][key] + second[0][key]) / 2
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=0)
    for gradient, a, b in zip(gradients, first[1], second[1], strict=True):
        torch.testing.assert_close(gradient, (a + b) / 2, rtol=1e-3, atol=1e-6)


def test_mask_rcnn_with_the_deformable_resnet():
    cfg = LazyConfig.load(str(CONFIGS / "coco/mask_rcnn_R_50_FPN_rs_1x.py")).model
    shrink(cfg)
    parts = LazyConfig.load(str(CONFIGS / "common/models/resnet_101_dcn.py"))
    cfg.backbone.bottom_up = parts.bottom_up
    model = instantiate(cfg).train()
    step(model, inputs(2))
    for name, parameter in model.named_parameters():
        if "conv2_offset" in name:
            assert parameter.grad.isfinite().all(), name
    assert model.backbone.bottom_up.res5[2].conv2_offset.weight.grad.any()


def test_low_quality_matches_of_mask_rcnn():
    """An object takes its best proposal from one that overlaps it more."""
    gt = Instances(SIZE, gt_boxes=Boxes(torch.tensor([[0.0, 0, 50, 60], [0, 0, 50, 90]])))
    gt.gt_classes = torch.tensor([1, 2])
    # IoU with the two: 0.98 and 0.66, 0.86 and 0.78, far off.
    boxes = torch.tensor([[0.0, 0, 50, 59], [0, 0, 50, 70], [90, 60, 120, 90]])
    proposals = [Instances(SIZE, proposal_boxes=Boxes(boxes))]
    for architecture, expected in (("mask", [1, 2, 1, 2, 5]), ("cascade", [1, 2, 1, 1, 5])):
        heads = detector(architecture, "brs").roi_heads
        (labeled,) = heads.label_and_sample_proposals(proposals, [gt])
        assert labeled.gt_classes.tolist() == expected
        assert torch.equal(labeled.proposal_boxes.tensor[2:], boxes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inference(architecture):
    model = detector(architecture, "rs").eval()
    heads = model.roi_heads
    predictor = heads.box_predictor[-1] if architecture == "cascade" else heads.box_predictor
    predictor.test_score_thresh = 0.0
    with torch.no_grad():
        (output,) = model(inputs(2)[:1])
    found = output["instances"]
    assert 0 < len(found) <= 100
    assert ((found.scores > 0) & (found.scores < 1)).all()
    if architecture == "mask":
        assert found.pred_masks.shape == (len(found), *SIZE)


@pytest.mark.parametrize("name", ["ce", "brs", "alrp"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_yaml_users(architecture, name):
    cfg = small_rcnn(CLASSES)
    add_brloss_config(cfg, name)
    if architecture == "cascade":
        cfg.MODEL.ROI_HEADS.NAME = "CriterionCascadeROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    cfg.MODEL.MASK_ON = True  # in the cascade, too
    model = build_model(cfg).train()
    heads = model.roi_heads
    assert isinstance(heads.mask_head, CriterionMaskHead)
    assert repr(heads.mask_head.criterion) == repr(build_criterion(name, "mask"))
    if architecture == "cascade":
        assert isinstance(heads, CriterionCascadeROIHeads)
        expected = [1, 0.5, 0.25] if name == "ce" else [1, 1, 1]
        assert [p.loss_weight for p in heads.box_predictor] == expected
        scale = [10, 20, 30] if name == "ce" else [10, 10, 10]
        assert [p.box2box_transform.weights[0] for p in heads.box_predictor] == scale
    else:
        assert heads.proposal_matcher.min_low_quality_iou == 0.5
    losses = step(model, inputs(2, 1))
    assert all(v.isfinite() for v in losses.values())
    assert "loss_mask" in losses
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def train_two_steps(architecture: str, folder: str) -> None:
    rank = dist.get_rank()
    model = DistributedDataParallel(detector(architecture, "brs"))
    for _ in range(2):  # the second step fails if the first left a parameter without gradient
        step(model, inputs(2 * rank))
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    torch.save(gradients, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_process_without_objects_keeps_up(programs: Programs, architecture, tmp_path):
    programs.spawn(train_two_steps, architecture, str(tmp_path), processes=2, folder=tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
    assert any(g.any() for n, g in first.items() if n.startswith("roi_heads"))
