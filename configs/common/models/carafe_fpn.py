"""The feature pyramid of RS-R-CNN+ and RS-Mask R-CNN+: upsampling by CARAFE, learned P6."""

from detectron2.config import LazyCall as L

from brloss_d2.modeling import CarafeFPN


def use_carafe(model):
    """Replace the feature pyramid of a detector; backbone and heads stay as they are."""
    model.backbone = L(CarafeFPN)(
        bottom_up=model.backbone.bottom_up,
        in_features="${.bottom_up.out_features}",
        out_channels=model.backbone.out_channels,
    )
