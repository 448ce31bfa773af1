"""The COCO and LVIS protocols, computed by hotcoco or by the official packages.

hotcoco is a port to Rust that finds the numbers of pycocotools and `lvis` in a fraction of the
time. Records that it refuses, such as negative image ids, are left to the official package.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.cocoeval import COCOeval

from brloss_d2.evaluation.replace import numpy_with, replaced

try:
    import hotcoco
except ImportError:
    hotcoco: Any = None  # type: ignore[no-redef]

logger = logging.getLogger(__name__)

COCO_LIMITS = (1, 10, 100)
# What the protocols read. hotcoco refuses other entries if JSON cannot hold them.
_KEYS = {
    "images": ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id", "name", "frequency"),
}


class Evaluation:
    """A finished evaluation in the COCO or LVIS protocol, with all values between 0 and 1.

    Attributes:
        package: name of the package that evaluated.
        task: `bbox` or `segm`.
        truth: dataset in COCO format.
        found: detection id -> detection.
        computed: evaluation object of the package; its `params` hold the IoU thresholds, (T,).
        summary: table of the package.
        image_ids: sorted ids of the images.
        class_ids: sorted ids of the classes, K of them.
        metrics: LVIS metrics by name, -1 if undefined; empty for COCO.
    """

    package: str
    task: str
    truth: dict[str, Any]
    found: Mapping[int, Mapping[str, Any]]
    computed: Any
    summary: str
    image_ids: list[int]
    class_ids: list[int]
    metrics: Mapping[str, float] = {}

    @property
    def stats(self) -> np.ndarray:
        """(12,), AP and AR in the order of `COCOeval.stats`; -1 if undefined."""
        return np.asarray(self.computed.stats)

    @property
    def eval(self) -> Mapping[str, Any]:
        """`precision`, (T, R, K, areas, limits), and `recall`, (T, K, areas, limits)."""
        return self.computed.eval

    def pairs(self, iou_threshold: float, area: str) -> tuple[dict[int, int], list[int]]:
        """Return which detection was matched with which object, without those that are ignored.

        Args:
            iou_threshold: IoU from which a detection matches, one of those of the evaluation.
            area: `all`, `small`, `medium` or `large`, the objects to be found.

        Returns:
            Detection id -> object id, 0 for a false positive; ids of the objects to be found.
        """
        params = self.computed.params
        wanted = list(params.areaRng[params.areaRngLbl.index(area)])
        row = int(np.argmin(np.abs(np.asarray(params.iouThrs) - iou_threshold)))
        keys = ("dtIds", "dtMatches", "dtIgnore", "gtIds", "gtIgnore")
        cells = (cell for cell in self.computed.evalImgs if cell and list(cell["aRng"]) == wanted)
        return _pairs(([cell[key] for key in keys] for cell in cells), row)


class HotcocoEvaluation(Evaluation):
    """An evaluation by hotcoco."""

    package = "hotcoco"

    def __init__(
        self,
        truth: dict[str, Any],
        results: Sequence[Mapping[str, Any]],
        task: str,
        *,
        limits: Sequence[int] = COCO_LIMITS,
        image_ids: Sequence[int] | None = None,
        lvis: bool = False,
    ):
        """Evaluate detections.

        Args:
            truth: dataset in COCO format, or LVIS format if `lvis`.
            results: detections in COCO format, at least one.
            task: `bbox` or `segm`.
            limits: detections per image and class for each AR; the largest is that of AP. LVIS
                takes one limit, per image.
            image_ids: ids of the images to evaluate; all of them by default.
            lvis: whether to follow the LVIS protocol.

        Raises:
            ValueError: hotcoco does not accept the records, or is known to differ on them.
        """
        if not np.isfinite([r["bbox"] for r in results if "bbox" in r]).all():
            raise ValueError("a box is not finite, which pycocotools matches in its own way")
        self.task, self.truth, self._lvis = task, truth, lvis
        self.found = dict(enumerate(results, 1))
        api = hotcoco.COCO(
            {
                part: [{key: r[key] for key in keys if key in r} for r in truth[part]]
                for part, keys in _KEYS.items()
            }
        )
        records = [dict(result) for result in results]
        found = hotcoco.LVISResults(api, records, limits[-1]) if lvis else api.load_res(records)
        self._data = api, found, task, lvis
        self.computed = hotcoco.COCOeval(*self._data)
        params = self.computed.params
        if not lvis:
            params.maxDets = list(limits)
        if image_ids is not None:
            params.imgIds = list(image_ids)
        self.computed.evaluate()
        self.computed.accumulate()
        self.summary = "\n".join(self.computed.summary_lines())
        self.image_ids, self.class_ids = sorted(params.imgIds), sorted(params.catIds)
        if lvis:
            self.metrics = self.computed.get_results()

    def pairs(self, iou_threshold: float, area: str) -> tuple[dict[int, int], list[int]]:
        """Match again, since the first evaluation does not give its matches at this size."""
        again, params = hotcoco.COCOeval(*self._data), self.computed.params
        again.params.imgIds, again.params.maxDets = params.imgIds, params.maxDets
        again.params.iouThrs = [iou_threshold]
        again.params.areaRng = [params.areaRng[params.areaRngLbl.index(area)]]
        again.params.areaRngLbl = [area]
        again.evaluate()
        found = again.image_diagnostics(iou_thr=iou_threshold)
        taken = found["dt_match"]
        pairs = {
            id_: taken[id_] if state == "tp" else 0 for id_, state in found["dt_status"].items()
        }
        return pairs, list(found["gt_status"])


class OfficialCOCOEvaluation(Evaluation):
    """An evaluation by pycocotools."""

    package = "pycocotools"

    def __init__(
        self,
        api: Any,
        results: Sequence[Mapping[str, Any]],
        task: str,
        *,
        limits: Sequence[int] = COCO_LIMITS,
        image_ids: Sequence[int] | None = None,
    ):
        """Evaluate detections.

        Args:
            api: ground truth, `pycocotools.coco.COCO`.
            results: see `HotcocoEvaluation`.
            task: see `HotcocoEvaluation`.
            limits: see `HotcocoEvaluation`.
            image_ids: see `HotcocoEvaluation`.
        """
        self.task, self.truth = task, api.dataset
        self.found = dict(enumerate(results, 1))
        kind = COCOeval if limits[-1] == COCO_LIMITS[-1] else COCOevalMaxDets
        with contextlib.redirect_stdout(io.StringIO()):
            self.computed = kind(api, api.loadRes([dict(result) for result in results]), task)
            params = self.computed.params
            params.maxDets = list(limits)
            if image_ids is not None:
                params.imgIds = list(image_ids)
            self.computed.evaluate()
            self.computed.accumulate()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            self.computed.summarize()
        self.summary = output.getvalue().rstrip()
        self.image_ids, self.class_ids = sorted(params.imgIds), sorted(params.catIds)


class OfficialLVISEvaluation(Evaluation):
    """An evaluation by the `lvis` package."""

    package = "lvis"

    def __init__(
        self, api: Any, results: Sequence[Mapping[str, Any]], task: str, *, limits: Sequence[int]
    ):
        """Evaluate detections.

        Args:
            api: ground truth, `lvis.LVIS`.
            results: see `HotcocoEvaluation`.
            task: see `HotcocoEvaluation`.
            limits: one number of detections per image.
        """
        import lvis

        self.task, self.truth = task, api.dataset
        found = lvis.LVISResults(api, [dict(result) for result in results], max_dets=limits[-1])
        self.found = found.anns
        self.computed = lvis.LVISEval(api, found, task)
        # numpy 1.24 dropped the alias that the package still uses.
        with (
            replaced(lvis.eval, np=numpy_with(float=np.float64)),
            contextlib.redirect_stdout(io.StringIO()) as output,
        ):
            self.computed.run()
            self.computed.print_results()
        self.summary, self.metrics = output.getvalue().rstrip(), self.computed.get_results()
        params = self.computed.params
        self.image_ids, self.class_ids = sorted(params.img_ids), sorted(params.cat_ids)

    def pairs(self, iou_threshold: float, area: str) -> tuple[dict[int, int], list[int]]:
        """See `Evaluation.pairs`; the package spells its names in another way."""
        params = self.computed.params
        wanted = params.area_rng[params.area_rng_lbl.index(area)]
        row = int(np.argmin(np.abs(params.iou_thrs - iou_threshold)))
        keys = ("dt_ids", "dt_matches", "dt_ignore", "gt_ids", "gt_ignore")
        cells = (cell for cell in self.computed.eval_imgs if cell and cell["area_rng"] == wanted)
        return _pairs(([cell[key] for key in keys] for cell in cells), row)


def _pairs(cells: Iterable[Sequence[Any]], row: int) -> tuple[dict[int, int], list[int]]:
    """Return what `Evaluation.pairs` does from the cells of an official package.

    Args:
        cells: ids, matches and ignored matches of the detections, ids and ignored ones of the
            objects, per image and class.
        row: index of the IoU threshold in the matches.
    """
    pairs: dict[int, int] = {}
    objects: list[int] = []
    for found, matched, ignored, truth, truth_ignored in cells:
        columns = zip(found, matched[row], ignored[row], strict=True)
        pairs.update({id_: int(object_) for id_, object_, skip in columns if not skip})
        objects += [id_ for id_, skip in zip(truth, truth_ignored, strict=True) if not skip]
    return pairs, objects


def evaluate_detections(
    api: Any,
    results: Sequence[Mapping[str, Any]],
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
        results: see `HotcocoEvaluation`; the area of a mask is its own only without `bbox`.
        task: see `HotcocoEvaluation`.
        limits: see `HotcocoEvaluation`.
        image_ids: see `HotcocoEvaluation`; for COCO alone.
        lvis: see `HotcocoEvaluation`.
        official: whether to insist on pycocotools or `lvis`.
    """
    if task == "segm":  # the packages would take the area of the box for that of the mask
        results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
    limits = sorted(limits)  # as pycocotools does
    evaluation: Evaluation | None = None
    if hotcoco is not None and not official:
        try:
            evaluation = HotcocoEvaluation(
                api.dataset, results, task, limits=limits, image_ids=image_ids, lvis=lvis
            )
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            logger.warning("hotcoco cannot evaluate these detections: %s", error)
    if evaluation is None and lvis:
        evaluation = OfficialLVISEvaluation(api, results, task, limits=limits)
    elif evaluation is None:
        evaluation = OfficialCOCOEvaluation(api, results, task, limits=limits, image_ids=image_ids)
    package, protocol = evaluation.package, "LVIS" if lvis else "COCO-style"
    logger.info("%s evaluation by %s %s: %s", protocol, package, version(package), task)
    return evaluation


def renumber_annotations(api: Any) -> None:
    """Number the annotations of a `COCO` or `LVIS` from 1.

    pycocotools takes a match with annotation 0 for none and confuses equal ids, and hotcoco refuses
    negative ids and names.
    """
    for number, annotation in enumerate(api.dataset.get("annotations", ()), 1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        (api.createIndex if hasattr(api, "createIndex") else api._create_index)()
