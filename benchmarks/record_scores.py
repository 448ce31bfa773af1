"""Train a detector for a while and record how its scores are distributed, for the benchmark.

    python tools/make_shapes.py --output datasets/shapes
    python benchmarks/record_scores.py --shapes datasets/shapes --iterations 300

Each head gets three snapshots (early, mid, late: the first, middle and last `--window` iterations),
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
from torch import nn

from brloss_d2.criteria import Criterion, MatchedPredictions
from brloss_d2.engine import main as train
from brloss_d2.engine import run
from support.problems import RECORDED, STAGES

CONFIG = "configs/quick/faster_rcnn_R_18_FPN_brs_300it.py"
TAILS = (0.0001, 0.001, 0.005)
LEVELS = (0.0, *TAILS, *np.linspace(0.01, 0.99, 99).tolist(), *(1 - t for t in TAILS[::-1]), 1.0)


class ScoreRecorder:
    """Forward pre-hook for all modules that collects the scores given to criteria.

    Args:
        iterations: number of iterations of the training.
        window: number of iterations per snapshot.
    """

    def __init__(self, iterations: int, window: int) -> None:
        middle = (iterations - window) // 2
        starts = dict(zip(STAGES, (0, middle, iterations - window), strict=True))
        self.windows = {stage: range(start, start + window) for stage, start in starts.items()}
        self.seen: dict[str, int] = defaultdict(int)
        self.parts: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        """Collect the scores if the module is a criterion and the iteration in a snapshot."""
        if not isinstance(module, Criterion):
            return
        (matched,) = inputs
        head = "rpn" if matched.num_classes == 1 else "roi"
        for stage, window in self.windows.items():
            if self.seen[head] in window:
                add_scores(self.parts[f"{head}_{stage}"], matched)
        self.seen[head] += 1

    def snapshots(self) -> dict[str, dict]:
        """Return numbers and quantiles of negatives, positives and quality, by head and stage."""
        found = {}
        for name, parts in sorted(self.parts.items()):
            joined = {what: np.concatenate(arrays) for what, arrays in parts.items()}
            counts = {f"num_{what}": len(joined[what]) for what in ("negatives", "positives")}
            quantiles = {
                what: [float(f"{v:.6g}") for v in np.quantile(values.astype(np.float64), LEVELS)]
                for what, values in joined.items()
            }
            found[name] = {**counts, **quantiles}
        return found


@torch.no_grad()
def add_scores(parts: dict[str, list], matched: MatchedPredictions) -> None:
    """Append the logits of negatives and positives, and the IoUs of the positives, to `parts`."""
    labels, logits = matched.binary_labels(), matched.logits.float()
    parts["negatives"].append(logits[labels == 0].cpu().numpy())
    parts["positives"].append(logits[labels == 1].cpu().numpy())
    parts["quality"].append(matched.localization_quality().cpu().numpy())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    option = parser.add_argument
    option("--shapes", default="datasets/shapes", help="folder made by tools/make_shapes.py")
    option("--config-file", default=CONFIG, help="config with a ranking loss")
    option("--iterations", type=int, default=300, help="iterations of training")
    option("--window", type=int, default=5, help="iterations per snapshot")
    option("--output", type=Path, default=RECORDED, help="JSON file")
    args = parser.parse_args(argv)
    command = ["--config-file", args.config_file, f"train.max_iter={args.iterations}"]
    for split in ("train", "val"):
        command.append(f"data.{split}={args.shapes}/annotations/instances_{split}.json")
        command.append(f"data.{split}_images={args.shapes}/{split}")
    recorder = ScoreRecorder(args.iterations, args.window)
    handle = nn.modules.module.register_module_forward_pre_hook(recorder)
    with tempfile.TemporaryDirectory() as folder:
        command.append(f"train.output_dir={folder}")
        run(train, default_argument_parser().parse_args(command))
    handle.remove()
    how = {"config": args.config_file, "iterations": args.iterations, "window": args.window}
    content = {"recorded": how, "levels": LEVELS, "snapshots": recorder.snapshots()}
    args.output.write_text(json.dumps(content).replace('"rpn', '\n"rpn').replace('"roi', '\n"roi'))
    print(f"Wrote {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
