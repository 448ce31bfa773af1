"""Every criterion trains every one-stage detector, on full, half-empty and empty batches."""

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from brloss_d2.criteria import SoftmaxCriterion
from brloss_d2.errors import InputError
from brloss_d2.losses import GIoULoss
from brloss_d2.model_zoo import get_config
from brloss_d2.modeling import OneStageDetector, add_brloss_config
from tests.helpers.criteria import ONE_STAGE, ONE_STAGE_CRITERIA, build_criterion
from tests.helpers.random_inputs import random_inputs
from tests.helpers.small_one_stage import CLASSES, small_config


def inputs(*objects: int, **options) -> list[dict]:
    return random_inputs(*objects, num_classes=CLASSES, **options)


def detector(architecture: str, name: str) -> OneStageDetector:
    """A small detector that starts with the criterion of that name."""
    leaves = {"fovea": "fovea_R_50_FPN_alrp_500s_100e"}
    cfg = small_config(leaves.get(architecture, f"{architecture}_R_50_FPN_rs_1x"), tower=64)
    criterion = build_criterion(name, architecture, pools_per_epoch=2)
    cfg.head.has_quality = getattr(criterion, "quality", None) is not None
    cfg.criterion = criterion
    torch.manual_seed(0)
    return instantiate(cfg).train()


ALL = [(a, n) for a in ONE_STAGE for n in ONE_STAGE_CRITERIA]


@pytest.mark.parametrize(("architecture", "name"), ALL)
def test_one_step_of_any_batch(architecture, name):
    model = detector(architecture, name)
    keys = set()
    for objects in ((3, 2), (0, 2), (0, 0)):
        model.zero_grad()
        with EventStorage():
            losses = model(inputs(*objects))
        sum(losses.values()).backward()
        keys.add(frozenset(losses))
        assert all(v.shape == () and v.isfinite() for v in losses.values())
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert len(keys) == 1  # the same names whatever the batch


@pytest.mark.parametrize("architecture", ONE_STAGE)
@pytest.mark.parametrize("objects", [("tiny", 1), ("many", 500)])
def test_one_tiny_object_and_five_hundred(architecture, objects):
    kind, count = objects
    model = detector(architecture, "brs")
    batch = inputs(count, 0, largest=1.5 if kind == "tiny" else 20.0)
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_names_of_the_losses():
    expected = {
        "focal": {"loss_cls", "loss_box_reg", "loss_quality"},
        "brs": {"loss_rank", "loss_sort", "loss_box_reg"},
        "bap": {"loss_rank", "loss_box_reg"},
    }
    for name, keys in expected.items():
        with EventStorage():
            assert set(detector("atss", name)(inputs(2))) == keys


def test_unbalanced_values_are_logged():
    with EventStorage() as storage:
        detector("atss", "rs")(inputs(3, 2))
        latest = storage.latest()
    assert latest["head/box_reg_unbalanced"][0] > 0
    assert latest["head/num_positives"][0] > 0


def test_a_quality_branch_exists_if_it_is_trained():
    assert not hasattr(detector("atss", "brs").head, "quality")
    assert detector("atss", "focal").head.quality.out_channels == 3
    cfg = small_config("atss_R_50_FPN_brs_1x", tower=32)
    cfg.head.has_quality = True
    with pytest.raises(InputError, match="has no quality branch to train: set it to False"):
        instantiate(cfg)
    cfg = small_config("atss_R_50_FPN_focal_1x", tower=32)
    cfg.head.has_quality = False
    with pytest.raises(InputError, match="has a quality branch to train: set it to True"):
        instantiate(cfg)


def test_no_background_class():
    cfg = small_config("atss_R_50_FPN_brs_1x", tower=32)
    cfg.criterion = SoftmaxCriterion(GIoULoss())
    with pytest.raises(InputError, match="SoftmaxCriterion needs a background class"):
        instantiate(cfg)


def test_boxes_to_learn_are_those_the_encoding_can_express():
    """FoveaBox: no side is nearer to a point of P3 than 1 pixel, 1/16 of 16."""
    model = detector("fovea", "brs")
    image = inputs(1)[0]
    tiny = torch.tensor([[3.5, 3.5, 4.5, 4.5]])
    image["instances"].gt_boxes = Boxes(tiny)
    images = model.preprocess_image([image])
    features = list(model.backbone(images.tensor).values())
    anchors = model.anchor_generator(features)
    matched, _ = model.matcher(anchors, model.head(features), [image["instances"]])
    torch.testing.assert_close(matched.gt_boxes, torch.tensor([[3.0, 3, 5, 5]]))


def test_pools_of_images():
    """Two pools of one image each: the mean of what each image gives alone."""
    model = detector("atss", "rs")
    model.criterion.images_per_pool = 1
    batch = inputs(3, 2)
    with EventStorage():
        both = model(batch)
        alone = [model([image]) for image in batch]
    for name, value in both.items():
        mean = sum(losses[name] for losses in alone) / 2
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_inference(architecture):
    model = detector(architecture, "focal" if architecture != "fovea" else "brs").eval()
    model.postprocessor.select.score_thresh = 0.0
    with torch.no_grad():
        outputs = model(inputs(2, 1))
    for output in outputs:
        instances = output["instances"]
        assert 0 < len(instances) <= 100
        assert (instances.scores[:-1] >= instances.scores[1:]).all()
        boxes = instances.pred_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([128.0, 96.0, 128.0, 96.0])).all()


def test_nothing_above_the_threshold():
    model = detector("paa", "brs").eval()
    model.postprocessor.select.score_thresh = 0.99
    with torch.no_grad():
        assert len(model(inputs(1))[0]["instances"]) == 0


def yaml_config(architecture: str, name: str):
    """The slim recipe laid out for that criterion, with the criterion of that name."""
    layout = "focal" if name in ("ce", "focal") else "brs"
    cfg = get_cfg()
    add_brloss_config(cfg, name, recipe=f"quick/{architecture}_R_18_FPN_{layout}_300it")
    cfg.MODEL.RETINANET.NUM_CLASSES = CLASSES
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize(("architecture", "name"), ALL)
def test_yaml_users(architecture, name):
    model = build_model(yaml_config(architecture, name)).train()
    assert isinstance(model, OneStageDetector)
    assert repr(model.criterion) == repr(build_criterion(name, architecture))
    with EventStorage():
        losses = model(inputs(2, 1))
    assert all(v.isfinite() for v in losses.values())


@pytest.mark.parametrize(
    "leaf",
    [
        *(f"{a}_R_50_FPN_{n}_1x" for a in ("atss", "paa", "retinanet") for n in ("focal", "brs")),
        "retinanet_R_50_FPN_alrp_1x",
        "fovea_R_50_FPN_focal_500s_100e",
        "fovea_R_50_FPN_alrp_500s_100e",
    ],
)
def test_yaml_and_lazy_users_get_the_same_detector(leaf):
    """Everything, as its state and settings show."""
    lazy = instantiate(get_config(f"coco/{leaf}").model)
    cfg = get_cfg()
    add_brloss_config(cfg, recipe=f"coco/{leaf}")
    cfg.MODEL.DEVICE = "cpu"
    for architecture in ("build_recipe_model", "OneStageDetector"):
        cfg.MODEL.META_ARCHITECTURE = architecture
        yaml = build_model(cfg)
        assert repr(lazy) == repr(yaml)
        for part in ("matcher", "postprocessor"):
            assert settings(getattr(lazy, part)) == settings(getattr(yaml, part))
        for ours, theirs in zip(
            lazy.anchor_generator.cell_anchors, yaml.anchor_generator.cell_anchors, strict=True
        ):
            torch.testing.assert_close(ours, theirs)
        assert lazy.anchor_generator.offset == yaml.anchor_generator.offset


def settings(part) -> object:
    """A plain view of a part and of the parts it is made of."""
    if isinstance(part, torch.nn.Module):
        return repr(part)
    if hasattr(part, "__dict__"):
        return type(part).__name__, {k: settings(v) for k, v in vars(part).items()}
    return repr(part) if "object at" not in repr(part) else type(part).__name__


def test_yaml_recipe_is_checked():
    with pytest.raises(InputError, match="no config 'coco/ssd_R_50_FPN_brs_1x'"):
        add_brloss_config(get_cfg(), recipe="coco/ssd_R_50_FPN_brs_1x")
