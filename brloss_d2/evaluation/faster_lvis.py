"""The LVIS protocol computed by faster-coco-eval."""

from faster_coco_eval import COCO, COCOeval_faster
from lvis import LVISEval


class FasterLVISEval(LVISEval):
    """`lvis.LVISEval` whose matching and accumulation run in C++."""

    def evaluate(self) -> None:
        """Match and accumulate; `summarize` reads what it leaves in `eval`."""
        truth, found = COCO(self.lvis_gt.dataset), COCO(self.lvis_dt.dataset)
        computed = COCOeval_faster(truth, found, self.params.iou_type, lvis_style=True)
        # `LVISResults` has applied the limit over all categories; there is none for one category.
        limit = max(map(len, self.lvis_dt.img_ann_map.values()))
        computed.params.maxDets = [limit]
        computed.evaluate()
        computed.accumulate()
        self.ious = computed.ious
        self.freq_groups = self._prepare_freq_group()
        self.eval = {name: computed.eval[name][..., 0] for name in ("precision", "recall")}

    def accumulate(self) -> None:
        """Do nothing: `evaluate` has done it."""
