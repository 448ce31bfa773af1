"""Cityscapes with masks: short sides 800 to 1024, tested at the full size of 1024 x 2048.

A detector without masks sets `dataloader.train.mapper.use_instance_mask=False` and
`'dataloader.evaluator.tasks=[bbox]'`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)

from brloss_d2.data import DetectionMapper
from brloss_d2.evaluation import CityscapesEvaluator

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="cityscapes_fine_instance_seg_train"),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=(800, 1024), sample_style="range", max_size=2048
                ),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="RGB",
            use_instance_mask=True,
            instance_mask_format="bitmask",
        ),
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(
            names="cityscapes_fine_instance_seg_val", filter_empty=False
        ),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=2048)],
            image_format="RGB",
        ),
        num_workers=4,
    ),
    evaluator=L(CityscapesEvaluator)(
        dataset_name="${..test.dataset.names}",
        output_dir="${train.output_dir}/inference",
    ),
)
