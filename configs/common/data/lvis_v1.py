"""LVIS v1 with masks: short sides 640 to 800, images with rare categories repeated.

The published models keep 300 detections per image above a score of 0.60, which the model decides:
`test_topk_per_image` and `test_score_thresh`. A detector without masks sets
`dataloader.train.mapper.use_instance_mask=False`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import RepeatFactorTrainingSampler

from brloss_d2.data import DetectionMapper, ceil_repeat_factors
from brloss_d2.evaluation import LVISEvaluator

_repeated = dict(dataset_dicts="${dataloader.train.dataset}", repeat_thresh=1e-3)

# The published rule, 122 800 images per epoch; it is used below.
repeat_ceil = L(RepeatFactorTrainingSampler)(repeat_factors=L(ceil_repeat_factors)(**_repeated))
# detectron2's rule, fewer images per epoch: `dataloader.train.sampler = repeat_stochastic`.
repeat_stochastic = L(RepeatFactorTrainingSampler)(
    repeat_factors=L(RepeatFactorTrainingSampler.repeat_factors_from_category_frequency)(
        **_repeated
    )
)

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="lvis_v1_train"),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=(640, 672, 704, 736, 768, 800),
                    sample_style="choice",
                    max_size=1333,
                ),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="RGB",
            use_instance_mask=True,
            instance_mask_format="bitmask",
        ),
        sampler=repeat_ceil,
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="lvis_v1_val", filter_empty=False),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
            image_format="RGB",
        ),
        num_workers=4,
    ),
    evaluator=L(LVISEvaluator)(
        dataset_name="${..test.dataset.names}",
        output_dir="${train.output_dir}/inference",
        max_dets_per_image=300,
    ),
)
