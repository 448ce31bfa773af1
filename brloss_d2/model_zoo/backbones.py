"""Another backbone for a detector, and what it needs of the model."""

from typing import Any

from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import DictConfig

from brloss_d2.errors import InputError

_IMAGENET = {
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "input_format": "RGB",
}


def set_backbone(model: DictConfig, name: str, **options: Any) -> DictConfig:
    """Give a detector another backbone; its feature pyramid, heads and losses stay.

    The pixels are normalized as for ImageNet.

    Args:
        model: model node of a config, changed in place.
        name: classifier of torchvision, see `TorchvisionBackbone`, or `timm/` and a model of timm,
            see `TimmBackbone`.
        options: other arguments of the backbone: `fixed_stats=False` to train from scratch.

    Returns:
        The same node.

    Raises:
        InputError: the name is unknown, or the backbone or the detector does not fit.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> cfg = model_zoo.get_config("quick/atss_R_18_FPN_rs_300it")
        >>> model = model_zoo.set_backbone(cfg.model, "mobilenet_v2")
        >>> model.backbone.bottom_up.name
        'mobilenet_v2'
    """
    empty = DictConfig({})
    neck, pyramid = model.get("neck") or empty, model.get("backbone") or empty
    if "input_shapes" not in neck and "bottom_up" not in pyramid:
        raise InputError(f"backbone={name}: this model has no feature pyramid to attach it to.")
    library = "Timm" if name.startswith("timm/") else "Torchvision"
    backbone = L(f"brloss_d2.modeling.{library}Backbone")(
        name=name.removeprefix("timm/"), **options
    )
    if "input_shapes" in neck:
        features = ["res2", "res3", "res4", "res5"][-len(neck.in_features) :]
    else:
        features = list(pyramid.bottom_up.out_features)
    backbone.out_features = features
    channels = {key: shape.channels for key, shape in instantiate(backbone).output_shape().items()}
    if "input_shapes" in neck:
        model.backbone = backbone
        neck.update(in_features=features, input_shapes=list(channels.values()))
    else:
        pyramid.bottom_up = backbone
        top_block = pyramid.get("top_block") or empty
        if top_block.get("in_feature") in channels:
            top_block.in_channels = channels[top_block.in_feature]
    model.update(_IMAGENET)
    return model
