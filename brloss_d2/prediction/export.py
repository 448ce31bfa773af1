"""Export detectors as a graph of tensors, by tracing."""

import copy
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.export import TracingAdapter
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import Instances
from torch import Tensor, nn
from torch.nn import functional as F

from brloss_d2.errors import InputError
from brloss_d2.prediction.batches import COUNTING, BatchDetector
from brloss_d2.prediction.predictor import Predictor
from brloss_d2.utils.files import check_folder_of, replacing
from brloss_d2.utils.terminal import silenced

Outputs = dict[str, Tensor]
METADATA = "detector.json"
_RESCALED = (0.75, 1.25)
_OPSET = 17
# In pixels, classes and probabilities.
_TOLERANCE = {"boxes": 1e-2, "labels": 1e-6, "masks": 1e-3, "scores": 1e-5}


@silenced(())  # the result is compared with the detector anyway
def export_torchscript(
    predictor: Predictor, image: np.ndarray, path: str, *, dynamic_batch: bool = False
) -> list[str]:
    """Write a TorchScript file and return the names of its outputs, in order.

    Its input is an image of any size as the network takes it: (3, H, W) uint8, resized, in the
    order of colors of the config; see `Predictor.resized`. Its outputs are those of `detections`
    whose scores reach the threshold of the predictor. A detector with a fixed number of detections
    (one that has `detect_batch`) takes images (N, 3, H, W) instead, any number of the size of the
    sample, and gives outputs (N, D, ...) of every score, as others do with `dynamic_batch`. The
    weights are frozen. The extra file `detector.json` holds what `describe` returns.

    Args:
        predictor: detector on the device that the file is for.
        image: (H, W, 3) uint8, RGB, in which the detector finds objects: the file can only do
            what happens in the trace.
        path: file to write.
        dynamic_batch: whether the file takes any number of images of the size of the sample: for
            one-stage detectors and R-CNNs for boxes.

    Raises:
        InputError: nothing is found in the image, the file cannot be written, or the trace differs
            from the detector on the same image at other sizes; the detector has masks or is of a
            kind that cannot take batches.
    """
    check_folder_of(path)
    graph = _graph(predictor, image, dynamic_batch=dynamic_batch)
    traced = torch.jit.trace(graph.module, (graph.example,), check_trace=False)
    graph.compare(lambda x: dict(zip(graph.names, traced(x), strict=True)))
    about = json.dumps(graph.about, ensure_ascii=False)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.jit.save(traced, file, _extra_files={METADATA: about})
    return graph.names


@silenced(())  # the result is compared with the detector anyway
def export_onnx(
    predictor: Predictor, image: np.ndarray, path: str, *, dynamic_batch: bool = False
) -> list[str]:
    """Write an ONNX file and return the names of its outputs; see `export_torchscript`.

    Its input is called `image`, and `detector.json` is a key of its metadata. This needs the
    package onnx; if onnxruntime is installed too, the file is compared with the detector.

    Raises:
        InputError: as for TorchScript, or the package is missing.
    """
    check_folder_of(path)
    graph = _graph(predictor, image, dynamic_batch=dynamic_batch)
    names = graph.names
    with replacing(path) as temporary:
        try:
            torch.onnx.export(
                graph.module,
                (graph.example,),
                temporary,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=names,
                dynamic_axes=graph.dynamic_axes,
                # The exporter for traces: the newer one refuses sizes that depend on the data.
                dynamo=False,
            )
        except (ImportError, torch.onnx.OnnxExporterError) as error:
            reason = str(error).splitlines()[0].rstrip(".!")
            raise InputError(
                f"Cannot export to ONNX: {reason}. It needs the package onnx, and a detector whose "
                "operators all exist there."
            ) from error
        import onnx  # which the exporter has just used

        model = onnx.load(temporary)
        about = json.dumps(graph.about, ensure_ascii=False)
        onnx.helper.set_model_props(model, {METADATA: about})
        onnx.save(model, temporary)
        run = _onnx_runner(temporary, names)
        if run is not None:
            graph.compare(run)
    return names


def describe(predictor: Predictor, outputs: Sequence[str]) -> dict[str, Any]:
    """Return what a program needs to use an exported detector.

    Args:
        predictor: detector that is exported.
        outputs: names of the outputs of the file, in order.

    Returns:
        `class_names` and `category_ids` of the labels 0..K-1; `score_threshold`, the lowest score
        that is kept in addition to thresholds of the model; `outputs`; and how to prepare an image:
        `image_format`, the order of its colors, and `short_side` and `max_side` in pixels, None
        if the config resizes in another way. A file for batches also has `height` and `width`.
    """
    resizing = [
        augmentation
        for augmentation in predictor.mapper.augmentations.augs
        if isinstance(augmentation, ResizeShortestEdge)
    ]
    # One size if the image is resized by nothing else.
    resize = resizing[0] if len(predictor.mapper.augmentations.augs) == 1 and resizing else None
    return {
        "class_names": predictor.categories.names,
        "category_ids": predictor.categories.ids,
        "score_threshold": predictor.score_threshold,
        "outputs": list(outputs),
        "image_format": predictor.mapper.image_format,
        "short_side": resize and resize.short_edge_length[0],
        "max_side": resize and resize.max_size,
    }


def detections(model: nn.Module, image: Tensor) -> Outputs:
    """Return the N detections of one image as an exported detector does.

    Args:
        model: detector in evaluation mode.
        image: (3, H, W), resized.

    Returns:
        `boxes` (N, 4), XYXY in pixels of `image`; `scores` (N,); `labels` (N,), 0..K-1; for a
        model with masks also `masks`, of an R-CNN (N, 1, 28, 28), probabilities over the area of
        each box, of others (N, H, W) bool.
    """
    inputs = [{"image": image}]
    if isinstance(model, GeneralizedRCNN):
        # Without pasting masks into the image, which is not part of the graph.
        found: Instances = model.inference(inputs, do_postprocess=False)[0]
    else:
        found = model(inputs)[0]["instances"]
    outputs = {
        "boxes": found.pred_boxes.tensor,
        "scores": found.scores,
        "labels": found.pred_classes,
    }
    if found.has("pred_masks"):
        outputs["masks"] = found.pred_masks
    return outputs


class _Graph(NamedTuple):
    """A detector as a function of one tensor.

    Attributes:
        module: that function, a copy of the detector.
        example: tensor to trace it with.
        names: names of its outputs, in order.
        dynamic_axes: axes that may vary, as `torch.onnx.export` takes them.
        about: content of `detector.json`.
        compare: function that raises `InputError` if an exported graph differs from the detector.
    """

    module: nn.Module
    example: Tensor
    names: list[str]
    dynamic_axes: dict[str, dict[int, str]]
    about: dict[str, Any]
    compare: Callable[[Callable[[Tensor], Outputs]], None]


class _OfBatches(nn.Module):
    """Outputs of a detector of batches in the order of their names."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.model.detect_batch(images)  # type: ignore[operator]
        return tuple(found[name] for name in sorted(found))


def _graph(predictor: Predictor, image: np.ndarray, *, dynamic_batch: bool) -> _Graph:
    """Return the detector as a function of one tensor, and such a tensor."""
    example = predictor.resized(image).to(next(predictor.model.parameters()).device)
    # The file shares no weights with the predictor, so that they can be frozen.
    model = copy.deepcopy(predictor.model).requires_grad_(False)
    if hasattr(model, "detect_batch"):
        return _graph_of_batches(predictor, example, _OfBatches(model))
    with torch.no_grad():
        found = detections(predictor.model, example)
    if not len(found["boxes"]):
        raise InputError(
            "The detector finds nothing in the sample image: export needs one with objects, or a "
            "lower score threshold."
        )
    if dynamic_batch:
        if "masks" in found:
            raise InputError("A detector of masks cannot be exported for batches of any size.")
        # Traced here: the exporter to ONNX does not take a module that has been scripted.
        module = torch.jit.trace(BatchDetector(model, example), example[None], check_trace=False)
        return _graph_of_batches(predictor, example, module)
    threshold = predictor.score_threshold

    def inference(model: nn.Module, image: Tensor) -> Outputs:
        return _from_score(threshold, detections(model, image))

    adapter = TracingAdapter(model, example, patch_builtin_len([COUNTING])(inference)).eval()
    adapter(example)
    names = adapter.outputs_schema.keys
    axes = {"image": {1: "height", 2: "width"}, **{name: {0: "count"} for name in names}}
    about, compare = describe(predictor, names), partial(_compare, predictor, example)
    return _Graph(adapter, example, names, axes, about, compare)


def _graph_of_batches(predictor: Predictor, example: Tensor, module: nn.Module) -> _Graph:
    """Return the graph of a module that takes any number of images of one size."""
    names = ["boxes", "labels", "scores"]
    axes = {name: {0: "batch"} for name in ("image", *names)}
    height, width = example.shape[1:]
    about = {**describe(predictor, names), "height": height, "width": width}
    compare = partial(_compare_batches, predictor, example)
    return _Graph(module, example[None], names, axes, about, compare)


def _from_score(threshold: float, outputs: Outputs) -> Outputs:
    """Drop detections below a score."""
    if not threshold:
        return outputs
    kept = outputs["scores"] >= threshold
    return {name: tensor[kept] for name, tensor in outputs.items()}


def _onnx_runner(path: str, names: list[str]) -> Callable[[Tensor], Outputs] | None:
    try:
        import onnxruntime
    except ImportError:
        logging.getLogger(__name__).warning(
            "The ONNX file has not been compared with the detector: there is no onnxruntime."
        )
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Outputs:
        arrays = session.run(names, {"image": image.cpu().numpy()})
        return {n: torch.as_tensor(a) for n, a in zip(names, arrays, strict=True)}

    return run


def _compare(predictor: Predictor, example: Tensor, exported: Callable[[Tensor], Outputs]) -> None:
    """Compare detector and exported graph on the example at several sizes."""
    for scale in (1.0, *_RESCALED):
        image = example
        if scale != 1.0:
            image = F.interpolate(example[None].float(), scale_factor=scale)[0].to(example.dtype)
        with torch.no_grad():
            found = detections(predictor.model, image)
        expected = _from_score(predictor.score_threshold, found)
        problem = _difference(expected, exported(image))
        if problem:
            raise InputError(
                f"The exported graph differs from the detector on an image of {image.shape[2]} x "
                f"{image.shape[1]} pixels: {problem}. This detector cannot be exported."
            )


def _compare_batches(
    predictor: Predictor, example: Tensor, exported: Callable[[Tensor], Outputs]
) -> None:
    """Compare detector and exported graph on one image and on several of its size."""
    images = torch.stack([example, example.flip(2), example.flip(1)])
    with torch.no_grad():
        expected = [detections(predictor.model, image) for image in images]
    for count in (1, len(images)):
        found = exported(images[:count])
        for i, own in enumerate(expected[:count]):
            is_detection = found["scores"][i] > 0  # the others fill up after a suppression
            kept = {name: tensor[i][is_detection] for name, tensor in found.items()}
            if problem := _difference(own, kept):
                raise InputError(
                    f"The exported graph differs from the detector on image {i} of a batch: "
                    f"{problem}. This detector cannot be exported."
                )


def _difference(expected: Outputs, found: Outputs) -> str:
    """Return what differs, "" if nothing does; detections with equal scores may be swapped."""
    found = {name: tensor.to(expected["boxes"].device) for name, tensor in found.items()}
    if len(expected["boxes"]) != len(found["boxes"]):
        return f"{len(found['boxes'])} detections instead of {len(expected['boxes'])}"
    if not len(expected["boxes"]):
        return ""
    apart = torch.cdist(_rows(expected), _rows(found), p=torch.inf)
    nearest = apart.argmin(1)
    for name, tensor in expected.items():
        errors = (found[name][nearest].double() - tensor.double()).abs()
        if tensor.dtype == torch.bool:  # the part of the pixels in which a mask differs
            errors = errors.flatten(1).mean(1)
        error = errors.max().item()
        if error > _TOLERANCE[name]:
            return f"{name} by up to {error:.3g}"
    return "too many detections" if apart.amin(0).max() > 1 else ""


def _rows(outputs: Outputs) -> Tensor:
    """Return (N, 6) boxes, labels and scores in units of the tolerance."""
    columns = ("boxes", "labels", "scores")
    scaled = [outputs[name].double() / _TOLERANCE[name] for name in columns]
    return torch.cat([column.reshape(len(column), -1) for column in scaled], 1)
