"""Several views of each test image.

Test-time augmentation that `test.augmentation=True` adds to a config: nine sizes, mirrored too.

The two sizes in pixels are replaced by those of the config's test images. For images with a short
side of 800 the scales are 400, 500, ..., 1200.
"""

from detectron2.config import LazyCall as L

from brloss_d2.modeling import DetectorWithTTA, TiledDetector

test_augmentation = L(DetectorWithTTA)(
    short_edge_length=800,
    max_size=1333,
    scales=[0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5],
    flip=True,
)

test_tiles = L(TiledDetector)(
    augmentations=[],
    tile=640,
    overlap=0.2,
    whole=True,
    batch_size=4,
    nms_thresh=0.5,
)
