"""All criteria by name: `NAME.SITE` trains one site of a detector with a loss.

The names are the loss tokens of the config names, and `brloss_d2.model_zoo.list_criteria` lists
them. The sites are

* `rpn`, `roi`, `mask`: the heads of Faster, Cascade and Mask R-CNN;
* `atss`, `paa`, `retinanet`, `fovea`: one-stage detectors, 16 images per iteration;
* `rpn_500s`, `roi_500s`, `retinanet_500s`, `fovea_500s`: the same at 512 x 512 pixels, 32 images
  per iteration;
* `yolact`, `yolact_mask`: YOLACT, 32 images per iteration;
* `solov2`, `solov2_mask`: the classes and the masks of SOLOv2, 32 images per iteration;
* `retinanet_800s`: aLRP Loss at 800 x 800 pixels, 16 images per iteration.

A new ranking loss is one line below, `NAME = _ranking(L(MyLoss)(...))`.
"""

from detectron2.config import LazyCall as L

from brloss_d2.criteria import (
    ALRPCriterion,
    Centerness,
    HardNegativeCriterion,
    MaskCriterion,
    PredictedIoU,
    QualityBranch,
    RankingCriterion,
    RelativeIoU,
    ScoreAndIoU,
    SigmoidCriterion,
    SoftmaxCriterion,
    TaskAlignment,
    TopScore,
)
from brloss_d2.losses import (
    ALRPLoss,
    APLoss,
    BinaryCrossEntropyLoss,
    BucketedAPLoss,
    BucketedRankSortLoss,
    ClassWeightedLoss,
    ConstantBalancer,
    CorrelationLoss,
    DiceLoss,
    DRLoss,
    EpochSelfBalancer,
    GIoULoss,
    IABCELoss,
    MaskCrossEntropyLoss,
    MatchabilityAwareLoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    RankSortLoss,
    SelfBalancer,
    SigmoidFocalLoss,
    SmoothL1Loss,
    VarifocalLoss,
)

# As on each GPU of the published settings; the losses depend on it.
_IMAGES_PER_POOL = 4
_IMAGES_PER_POOL_500S = 8
# Ranking pools per epoch of COCO: 16 images in pools of 4 on 4 GPUs, 32 in pools of 8.
_POOLS_PER_EPOCH = 7330
_POOLS_PER_EPOCH_500S = 3665
# 8 images on each of 4 GPUs, for the light SOLOv2.
_IMAGES_PER_POOL_SOLOV2 = 8


def _self_balanced(cls_loss, images=_IMAGES_PER_POOL):
    return L(RankingCriterion)(
        cls_loss=cls_loss,
        box_loss=L(GIoULoss)(),
        balancer=L(SelfBalancer)(),
        images_per_pool=images,
    )


def _dice(max_masks=200, images=_IMAGES_PER_POOL):
    return L(MaskCriterion)(
        mask_loss=L(DiceLoss)(eps=1e-5),
        balancer=L(SelfBalancer)(),
        max_masks=max_masks,
        images_per_pool=images,
    )


def _cross_entropy_of_yolact():
    return L(MaskCriterion)(
        mask_loss=L(MaskCrossEntropyLoss)(),
        balancer=L(ConstantBalancer)(weight=6.125),
        max_masks_per_image=100,
    )


def _solov2(criterion, mask_balancer, **pools):
    """Classes ranked or compared by the Dice coefficients of the masks, and these themselves."""
    masks = L(MaskCriterion)(mask_loss=L(DiceLoss)(eps=0.002), balancer=mask_balancer, **pools)
    return dict(solov2=criterion, solov2_mask=masks)


def _ranking(cls_loss):
    """All sites of a ranking loss, self-balanced, with Dice loss for the masks."""
    detectors = ("rpn", "roi", "atss", "paa", "retinanet", "fovea")
    return dict(
        {site: _self_balanced(cls_loss) for site in detectors},
        mask=_dice(),
        **{
            f"{site}_500s": _self_balanced(cls_loss, _IMAGES_PER_POOL_500S)
            for site in ("rpn", "roi", "retinanet", "fovea")
        },
        yolact=dict(_self_balanced(cls_loss, _IMAGES_PER_POOL_500S), disjoint_is_negative=True),
        yolact_mask=_dice(max_masks=None, images=_IMAGES_PER_POOL_500S),
        **_solov2(
            L(RankingCriterion)(
                cls_loss=cls_loss,
                box_loss={},
                balancer=L(SelfBalancer)(),
                images_per_pool=_IMAGES_PER_POOL_SOLOV2,
            ),
            L(SelfBalancer)(),
            images_per_pool=_IMAGES_PER_POOL_SOLOV2,
        ),
    )


def _weighted(cls_loss, box_weight):
    criterion = _self_balanced(cls_loss)
    criterion.balancer = L(ConstantBalancer)(weight=box_weight)
    return criterion


def _on_deltas(cls_loss, beta, images=_IMAGES_PER_POOL):
    return L(RankingCriterion)(
        cls_loss=cls_loss,
        box_loss=L(SmoothL1Loss)(beta=beta),
        # The mean over positives and coordinates.
        balancer=L(ConstantBalancer)(weight=0.25),
        score_weighted=False,
        images_per_pool=images,
    )


def _average_precision(loss):
    """Self-balanced in the R-CNN; constant box weights, as published, in one-stage detectors."""
    one, half = (L(loss)(delta=delta) for delta in (1.0, 0.5))
    return dict(
        _ranking(one),
        atss=_weighted(one, 2.0),
        paa=_weighted(half, 1.0),
        retinanet=_on_deltas(one, beta=1.0),
        fovea=_on_deltas(one, beta=0.11),
        retinanet_500s=_on_deltas(one, beta=1.0, images=_IMAGES_PER_POOL_500S),
        fovea_500s=_on_deltas(one, beta=0.11, images=_IMAGES_PER_POOL_500S),
    )


def _alrp(pools_per_epoch=_POOLS_PER_EPOCH, images=_IMAGES_PER_POOL, **options):
    return L(ALRPCriterion)(
        cls_loss=L(ALRPLoss)(delta=1.0),
        box_loss=L(GIoULoss)(),
        balancer=L(EpochSelfBalancer)(pools_per_epoch=pools_per_epoch, initial=50.0),
        **options,
        images_per_pool=images,
    )


def _soft_targets(cls_loss, box_weight, box_weighting, **options):
    """All one-stage detectors train alike with quality-aware scores."""
    sites = {
        site: L(SigmoidCriterion)(
            cls_loss=cls_loss,
            box_loss=L(GIoULoss)(),
            box_weight=box_weight,
            box_weighting=L(box_weighting)(),
            sync_normalizer=True,
            **options,
        )
        for site in ("atss", "paa", "retinanet", "fovea", "retinanet_500s", "fovea_500s", "yolact")
    }
    masks = L(SigmoidCriterion)(
        cls_loss=cls_loss,
        box_loss={},
        box_weighting=L(box_weighting)(),
        sync_normalizer=True,
        **options,
    )
    return dict(
        sites,
        yolact_mask=_cross_entropy_of_yolact(),
        **_solov2(masks, L(ConstantBalancer)(weight=3.0)),
    )


def _hard_targets(cls_loss, fovea_cls_loss):
    """The published baselines of the one-stage detectors, with focal loss or another loss."""
    fovea = L(SigmoidCriterion)(
        cls_loss=fovea_cls_loss,
        box_loss=L(SmoothL1Loss)(beta=0.11),
        normalizer="positives_and_images",
        box_normalizer="positives",
    )
    retinanet = L(SigmoidCriterion)(
        cls_loss=cls_loss, box_loss=L(SmoothL1Loss)(beta=0.0), normalizer="positives_per_image"
    )
    return dict(
        atss=L(SigmoidCriterion)(
            cls_loss=cls_loss,
            box_loss=L(GIoULoss)(),
            box_weight=2.0,
            normalizer="positives_per_image",
            box_weighting=L(Centerness)(),
            quality=L(QualityBranch)(target=L(Centerness)(), loss_weight=1.0),
            sync_normalizer=True,
        ),
        paa=L(SigmoidCriterion)(
            cls_loss=cls_loss,
            box_loss=L(GIoULoss)(),
            box_weight=1.3,
            normalizer="positives_or_images",
            box_normalizer="positives",
            box_weighting=L(PredictedIoU)(),
            quality=L(QualityBranch)(target=L(PredictedIoU)(), loss_weight=0.5),
        ),
        retinanet=retinanet,
        fovea=fovea,
        retinanet_500s=retinanet,
        fovea_500s=fovea,
        yolact=L(SigmoidCriterion)(
            cls_loss=cls_loss,
            box_loss=L(SmoothL1Loss)(beta=1.0),
            box_weight=1.5,
            normalizer="positives_per_image",
        ),
        yolact_mask=_cross_entropy_of_yolact(),
        **_solov2(
            L(SigmoidCriterion)(cls_loss=cls_loss, box_loss={}, normalizer="positives_plus_one"),
            L(ConstantBalancer)(weight=3.0),
        ),
    )


ce = dict(
    _hard_targets(L(BinaryCrossEntropyLoss)(), L(BinaryCrossEntropyLoss)()),
    rpn=L(SigmoidCriterion)(
        cls_loss=L(BinaryCrossEntropyLoss)(), box_loss=L(SmoothL1Loss)(beta=0.0), normalizer="rows"
    ),
    roi=L(SoftmaxCriterion)(box_loss=L(SmoothL1Loss)(beta=0.0)),
    mask=L(MaskCriterion)(
        mask_loss=L(MaskCrossEntropyLoss)(), balancer=L(ConstantBalancer)(weight=1.0)
    ),
)
ce.update(rpn_500s=ce["rpn"], roi_500s=ce["roi"])
# As published: with a background class and hard negatives.
ce.update(yolact=L(HardNegativeCriterion)(box_loss=L(SmoothL1Loss)(beta=1.0), box_weight=1.5))
focal = _hard_targets(
    L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0), L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
)
# Against rare classes; `criterion.cls_loss.counts` takes the numbers of objects of the dataset.
wce = _hard_targets(*[L(ClassWeightedLoss)(cls_loss=L(BinaryCrossEntropyLoss)())] * 2)
wfocal = _hard_targets(
    L(ClassWeightedLoss)(cls_loss=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0)),
    L(ClassWeightedLoss)(cls_loss=L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)),
)
qfl = _soft_targets(L(QualityFocalLoss)(beta=2.0), 2.0, TopScore)
vfl = _soft_targets(L(VarifocalLoss)(alpha=0.75, gamma=2.0), 1.5, PredictedIoU)
# Published for a DETR; the boxes are those of varifocal loss.
mal = _soft_targets(L(MatchabilityAwareLoss)(gamma=1.5), 1.5, PredictedIoU)
# The next two were published for DETRs too.
iabce = _soft_targets(
    L(IABCELoss)(gamma=2.0), 1.5, PredictedIoU, target=L(ScoreAndIoU)(alpha=0.25, floor=0.01)
)
psl = _soft_targets(
    L(PositionSupervisedLoss)(alpha=0.25, gamma=2.0),
    1.5,
    PredictedIoU,
    target=L(RelativeIoU)(power=2.0),
)
# With the assigner of each detector; that of TOOD is `TaskAlignedAssigner`.
tal = _soft_targets(
    L(QualityFocalLoss)(beta=2.0),
    2.0,
    TaskAlignment,
    target=L(TaskAlignment)(alpha=1.0, beta=6.0),
    normalizer="targets",
)
# Focal loss with an auxiliary term, which any other criterion can have: `criterion.correlation`.
corr = _hard_targets(
    L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0), L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
)
for _site in corr.keys() - {"solov2_mask", "yolact_mask"}:
    corr[_site].correlation = L(CorrelationLoss)(kind="concordance", weight=0.2)
for _site in ("retinanet", "retinanet_500s"):  # as published, level by level
    corr[_site].correlation = L(CorrelationLoss)(kind="pearson", weight=0.1, per="level")
# The RetinaNet is that of the published DR Loss, smooth L1 divided by four coordinates; the others
# are those of focal loss. All start best from `head.prior_prob=0.5`.
dr = _hard_targets(L(DRLoss)(), L(DRLoss)())
for _site in ("retinanet", "retinanet_500s"):
    dr[_site].update(
        box_loss=L(SmoothL1Loss)(beta=0.11), box_weight=0.25, box_normalizer="positives"
    )
ap = _average_precision(APLoss)
bap = _average_precision(BucketedAPLoss)
rs = _ranking(L(RankSortLoss)(delta=0.5))
brs = _ranking(L(BucketedRankSortLoss)(delta=0.5))
alrp = dict(
    rpn=_alrp(error_scale=1 / 0.6),
    roi=_alrp(error_scale=1.0),
    mask=_dice(),
    atss=_alrp(),
    paa=_alrp(),
    retinanet=_alrp(),
    fovea=_alrp(),
    rpn_500s=_alrp(_POOLS_PER_EPOCH_500S, _IMAGES_PER_POOL_500S, error_scale=1 / 0.6),
    roi_500s=_alrp(_POOLS_PER_EPOCH_500S, _IMAGES_PER_POOL_500S, error_scale=1.0),
    retinanet_500s=_alrp(_POOLS_PER_EPOCH_500S, _IMAGES_PER_POOL_500S),
    fovea_500s=_alrp(_POOLS_PER_EPOCH_500S, _IMAGES_PER_POOL_500S),
    yolact=_alrp(_POOLS_PER_EPOCH_500S, _IMAGES_PER_POOL_500S),
    yolact_mask=_dice(max_masks=None, images=_IMAGES_PER_POOL_500S),
    # As published, by mistake: half an epoch.
    retinanet_800s=_alrp(_POOLS_PER_EPOCH_500S),
)
