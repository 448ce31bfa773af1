"""Train a detector for a while and keep how its scores were distributed, for the benchmark.

    python tools/make_shapes.py --output datasets/shapes
    python benchmarks/record_scores.py --shapes datasets/shapes --iterations 300

Three snapshots (early, mid, late: the first, middle and last `--window` iterations) of each head,
as quantiles of the logits of negatives and positives and of the quality of the positives.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import default_argument_parser
from support.problems import RECORDED, STAGES
from torch import nn

from brloss_d2.criteria import Criterion, MatchedPredictions
from brloss_d2.engine import main as train
from brloss_d2.engine import run
from brloss_d2.losses import paired_box_iou

CONFIG = "configs/quick/faster_rcnn_R_18_FPN_brs_300it.py"
TAILS = (0.0001, 0.001, 0.005)
LEVELS = (0.0, *TAILS, *np.linspace(0.01, 0.99, 99).tolist(), *(1 - t for t in TAILS[::-1]), 1.0)


class ScoreRecorder:
    """Collects the scores that criteria are called with; a hook before every forward pass."""

    def __init__(self, iterations: int, window: int):
        middle = (iterations - window) // 2
        starts = dict(zip(STAGES, (0, middle, iterations - window), strict=True))
        self.windows = {stage: range(start, start + window) for stage, start in starts.items()}
        self.seen: dict[str, int] = defaultdict(int)
        self.parts: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        """To be registered with `register_module_forward_pre_hook`."""
        if not isinstance(module, Criterion):
            return
        (matched,) = inputs
        head = "rpn" if matched.num_classes == 1 else "roi"
        for stage, window in self.windows.items():
            if self.seen[head] in window:
                self._add(self.parts[f"{head}_{stage}"], matched)
        self.seen[head] += 1

    @torch.no_grad()
    def _add(self, parts: dict[str, list], matched: MatchedPredictions) -> None:
        labels, logits = matched.binary_labels(), matched.logits.float()
        parts["negatives"].append(logits[labels == 0].cpu().numpy())
        parts["positives"].append(logits[labels == 1].cpu().numpy())
        parts["quality"].append(paired_box_iou(matched.pred_boxes, matched.gt_boxes).cpu().numpy())

    def snapshots(self) -> dict[str, dict]:
        """Per head and stage: number and quantiles of negatives, positives, quality."""
        found = {}
        for name, parts in sorted(self.parts.items()):
            joined = {what: np.concatenate(arrays) for what, arrays in parts.items()}
            counts = {f"num_{what}": len(joined[what]) for what in ("negatives", "positives")}
            quantiles = {what: _quantiles(values) for what, values in joined.items()}
            found[name] = {**counts, **quantiles}
        return found


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in np.quantile(values.astype(np.float64), LEVELS)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    recorder = ScoreRecorder(args.iterations, args.window)
    handle = nn.modules.module.register_module_forward_pre_hook(recorder)
    with tempfile.TemporaryDirectory() as folder:
        run(train, default_argument_parser().parse_args(_command(args, folder)))
    handle.remove()
    how = {"config": args.config_file, "iterations": args.iterations, "window": args.window}
    content = {"recorded": how, "levels": LEVELS, "snapshots": recorder.snapshots()}
    args.output.write_text(json.dumps(content).replace('"rpn', '\n"rpn').replace('"roi', '\n"roi'))
    print(f"Wrote {args.output}")
    return 0


def _command(args: argparse.Namespace, folder: str) -> list[str]:
    data = [f"data.train={args.shapes}/annotations/instances_train.json"]
    data += [f"data.train_images={args.shapes}/train"]
    data += [f"data.val={args.shapes}/annotations/instances_val.json"]
    data += [f"data.val_images={args.shapes}/val"]
    options = [f"train.max_iter={args.iterations}", f"train.output_dir={folder}"]
    return ["--config-file", args.config_file, *data, *options]


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    parser.add_argument("--shapes", default="datasets/shapes", help="made by tools/make_shapes.py")
    parser.add_argument("--config-file", default=CONFIG, help="one with a ranking loss")
    parser.add_argument("--iterations", type=int, default=300, help="of training")
    parser.add_argument("--window", type=int, default=5, help="iterations in a snapshot")
    parser.add_argument("--output", type=Path, default=RECORDED, help="JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
