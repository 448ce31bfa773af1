"""The COCO and LVIS protocols, computed by hotcoco or by the official packages.

hotcoco is a port to Rust that finds the numbers of pycocotools and `lvis` in a fraction of the
time. Records that it refuses, such as negative image ids, are left to the official package.
"""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from brloss_d2.data import read_coco
from brloss_d2.errors import InputError
from brloss_d2.evaluation.replace import numpy_with, replaced

try:
    import hotcoco
except ImportError:
    hotcoco: Any = None  # type: ignore[no-redef]

logger = logging.getLogger(__name__)

COCO_LIMITS = (1, 10, 100)
AP_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# What the protocols read. hotcoco refuses other entries if JSON cannot hold them.
_KEYS = {
    "images": ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id", "name", "frequency"),
}
_COCO_CELL = ("dtIds", "dtMatches", "dtIgnore", "gtIds", "gtIgnore", "aRng")
_LVIS_CELL = ("dt_ids", "dt_matches", "dt_ignore", "gt_ids", "gt_ignore", "area_rng")


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation in the COCO or LVIS protocol, with all values between 0 and 1.

    Attributes:
        package: name of the package that evaluated: `hotcoco`, `pycocotools` or `lvis`.
        task: `bbox` or `segm`.
        truth: dataset in COCO format.
        found: detection id -> detection.
        computed: evaluation object of the package.
        summary: table of the package.
        metrics: LVIS metrics by name, -1 if undefined; empty for COCO.
    """

    package: str
    task: str
    truth: Mapping[str, Any]
    found: Mapping[int, Mapping[str, Any]]
    computed: Any
    summary: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def stats(self) -> np.ndarray:
        """(12,), AP and AR in the order of `COCOeval.stats`; -1 if undefined."""
        return np.asarray(self.computed.stats)

    @property
    def eval(self) -> Mapping[str, Any]:
        """`precision`, (T, R, K, areas, limits), and `recall`, (T, K, areas, limits)."""
        return self.computed.eval

    @property
    def image_ids(self) -> list[int]:
        """Sorted ids of the images."""
        params = self.computed.params
        return sorted(params.img_ids if self.package == "lvis" else params.imgIds)

    @property
    def class_ids(self) -> list[int]:
        """Sorted ids of the classes, K of them."""
        params = self.computed.params
        return sorted(params.cat_ids if self.package == "lvis" else params.catIds)

    def pairs(self, iou_threshold: float, area: str) -> tuple[dict[int, int], list[int]]:
        """Return which detection was matched with which object, without those that are ignored.

        Args:
            iou_threshold: IoU from which a detection matches, one of those of the evaluation.
            area: `all`, `small`, `medium` or `large`, the objects to be found.

        Returns:
            Detection id -> object id, 0 for a false positive; ids of the objects to be found.
        """
        if self.package == "hotcoco":
            return self._pairs_of_hotcoco(iou_threshold, area)
        params = self.computed.params
        if self.package == "lvis":
            cells, keys, thresholds = self.computed.eval_imgs, _LVIS_CELL, params.iou_thrs
            wanted = params.area_rng[params.area_rng_lbl.index(area)]
        else:
            cells, keys, thresholds = self.computed.evalImgs, _COCO_CELL, params.iouThrs
            wanted = params.areaRng[params.areaRngLbl.index(area)]
        row = int(np.argmin(np.abs(np.asarray(thresholds) - iou_threshold)))
        pairs: dict[int, int] = {}
        objects: list[int] = []
        for cell in filter(None, cells):
            found, taken, ignored, truth, truth_ignored, area_range = (cell[key] for key in keys)
            if list(area_range) == list(wanted):
                columns = zip(found, taken[row], ignored[row], strict=True)
                pairs.update({id_: int(object_) for id_, object_, skip in columns if not skip})
                objects += [id_ for id_, skip in zip(truth, truth_ignored, strict=True) if not skip]
        return pairs, objects

    def _pairs_of_hotcoco(
        self, iou_threshold: float, area: str
    ) -> tuple[dict[int, int], list[int]]:
        # Its cells take longer to become Python objects than a second evaluation with one range
        # of areas, the only one that `image_diagnostics` looks at.
        params, lvis = self.computed.params, bool(self.metrics)
        again = hotcoco.COCOeval(self.computed.coco_gt, self.computed.coco_dt, self.task, lvis)
        again.params.imgIds, again.params.maxDets = params.imgIds, params.maxDets
        again.params.areaRng = [params.areaRng[params.areaRngLbl.index(area)]]
        again.params.areaRngLbl, again.params.iouThrs = [area], [iou_threshold]
        again.evaluate()
        result = again.image_diagnostics(iou_thr=iou_threshold)
        states, taken = result["dt_status"].items(), result["dt_match"]
        pairs = {id_: taken[id_] if state == "tp" else 0 for id_, state in states}
        return pairs, list(result["gt_status"])


def warn_of_nothing(task: str) -> None:
    """Say that there are no detections, which otherwise shows by empty metrics only."""
    logger.warning(
        "The model found nothing (%s): all scores are below its threshold, it has hardly been "
        "trained yet, or its training has diverged.",
        task,
    )


def evaluate_detections(
    api: Any,
    results: Sequence[dict[str, Any]],
    task: str,
    *,
    limits: Sequence[int] = COCO_LIMITS,
    image_ids: Sequence[int] | None = None,
    lvis: bool = False,
    official: bool = False,
) -> Evaluation:
    """Evaluate detections by hotcoco if it is installed and accepts them, else officially.

    The log says which package evaluated.

    Args:
        api: ground truth, `pycocotools.coco.COCO` or `lvis.LVIS`, after `renumber_annotations`.
        results: detections in COCO format, at least one.
        task: `bbox` or `segm`.
        limits: detections per image and class for each AR; the largest is that of AP. LVIS takes
            one limit, per image.
        image_ids: ids of the images to evaluate, for COCO; all of them by default.
        lvis: whether to follow the LVIS protocol.
        official: whether to insist on pycocotools or `lvis`.
    """
    records = list(results)
    if task == "segm":
        missing = sum("segmentation" not in record for record in api.anns.values())
        if missing:
            raise InputError(
                f"{missing} of the {len(api.anns)} annotations of the ground truth have no mask, "
                "so that masks cannot be evaluated."
            )
    if task == "segm":  # the packages would take the area of the box for that of the mask
        records = [{key: r[key] for key in r if key != "bbox"} for r in records]
    limits = sorted(limits)  # as pycocotools does
    evaluation = None
    if hotcoco is not None and not official:
        try:
            evaluation = _by_hotcoco(api.dataset, records, task, limits, image_ids, lvis=lvis)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            logger.warning(
                "hotcoco cannot evaluate these detections: %s; a slower package does, with the "
                "same numbers",
                error,
            )
    if evaluation is None and lvis:
        evaluation = _by_lvis(api, records, task, limits[-1])
    elif evaluation is None:
        evaluation = _by_pycocotools(api, records, task, limits, image_ids)
    package, protocol = evaluation.package, "LVIS" if lvis else "COCO-style"
    logger.debug("%s evaluation by %s %s: %s", protocol, package, version(package), task)
    return evaluation


def read_ground_truth(
    json_file: str, *, masks: bool | None = None, unannotated: bool = False
) -> COCO:
    """Read a dataset in COCO format, with annotations numbered from 1.

    Args:
        json_file: path of the annotations.
        masks: whether every object needs a mask, as in `read_coco`.
        unannotated: whether the file may lack the list of annotations, as in `read_coco`; the
            dataset then lacks it too.

    Raises:
        InputError: the file is missing or has a mistake.
    """
    content = read_coco(json_file, masks=masks, evaluation=True, unannotated=unannotated)
    api = COCO()
    api.dataset = {
        "images": content.images,
        "categories": [{"id": id_, "name": name} for id_, name in content.categories.items()],
    }
    if content.annotated:
        api.dataset["annotations"] = content.annotations
    renumber_annotations(api)
    return api


def renumber_annotations(api: Any) -> None:
    """Number the annotations of a `COCO` or `LVIS` from 1.

    pycocotools takes a match with annotation 0 for none and confuses equal ids, and hotcoco refuses
    negative ids and text.
    """
    for number, annotation in enumerate(api.dataset.get("annotations", ()), 1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        (api.createIndex if hasattr(api, "createIndex") else api._create_index)()


def _by_hotcoco(
    truth: Mapping[str, Any],
    results: list[dict[str, Any]],
    task: str,
    limits: Sequence[int],
    image_ids: Sequence[int] | None,
    *,
    lvis: bool,
) -> Evaluation:
    if not np.isfinite([r["bbox"] for r in results if "bbox" in r]).all():
        raise ValueError("a box is not finite, which pycocotools matches in another way")
    if lvis and any(annotation.get("ignore") for annotation in truth["annotations"]):
        raise ValueError("an annotation is marked 'ignore', which only the lvis package reads")
    sections = {
        name: [{key: record[key] for key in keys if key in record} for record in truth[name]]
        for name, keys in _KEYS.items()
    }
    api = hotcoco.COCO(sections)
    found = hotcoco.LVISResults(api, results, limits[-1]) if lvis else api.load_res(results)
    computed = hotcoco.COCOeval(api, found, task, lvis)
    if not lvis:
        computed.params.maxDets = list(limits)
    if image_ids is not None:
        computed.params.imgIds = list(image_ids)
    computed.evaluate()
    computed.accumulate()
    summary = "\n".join(computed.summary_lines())
    metrics = computed.get_results() if lvis else {}
    numbered = dict(enumerate(results, 1))
    return Evaluation("hotcoco", task, truth, numbered, computed, summary, metrics)


def _by_pycocotools(
    api: Any,
    results: list[dict[str, Any]],
    task: str,
    limits: Sequence[int],
    image_ids: Sequence[int] | None,
) -> Evaluation:
    kind = COCOeval if limits[-1] == COCO_LIMITS[-1] else COCOevalMaxDets
    with contextlib.redirect_stdout(io.StringIO()):
        # The packages add entries to the records.
        computed = kind(api, api.loadRes([dict(result) for result in results]), task)
        computed.params.maxDets = limits
        if image_ids is not None:
            computed.params.imgIds = list(image_ids)
        computed.evaluate()
        computed.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        computed.summarize()
    found = dict(enumerate(results, 1))
    return Evaluation("pycocotools", task, api.dataset, found, computed, output.getvalue().rstrip())


def _by_lvis(api: Any, results: list[dict[str, Any]], task: str, limit: int) -> Evaluation:
    import lvis

    found = lvis.LVISResults(api, [dict(result) for result in results], max_dets=limit)
    computed = lvis.LVISEval(api, found, task)
    # numpy 1.24 dropped the alias that the package still uses.
    patch = replaced(lvis.eval, np=numpy_with(float=np.float64))
    with patch, contextlib.redirect_stdout(io.StringIO()) as output:
        computed.run()
        computed.print_results()
    summary, metrics = output.getvalue().rstrip(), computed.get_results()
    return Evaluation("lvis", task, api.dataset, found.anns, computed, summary, metrics)
