"""Measure how far bucketed losses are from exact ones: writes docs/bucketing.md and its picture.

    python tools/bucketing_report.py            # some two minutes on one core
    python tools/bucketing_report.py --quick    # a look, to output/bucketing_quick

Error of a problem: relative L2 distance between the gradients that the negatives receive from the
ranking terms of `BucketedRankSortLoss` and of `RankSortLoss`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import approximation
from benchmark.machine import ROOT, commit, describe, versions

FULL = approximation.Study(
    positives=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
    negatives=(1_000, 10_000, 100_000),
    deltas=(0.5, 1.0),
    problems=30,
    timed_rounds=31,
)
QUICK = FULL._replace(positives=(1, 20, 500), negatives=(1_000,), problems=5, timed_rounds=3)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="folder (default: docs)")
    parser.add_argument("--quick", action="store_true", help="few problems, in seconds")
    args = parser.parse_args(argv)
    study = QUICK if args.quick else FULL
    default = ROOT / "output" / "bucketing_quick" if args.quick else ROOT / "docs"
    output = args.output or default
    (output / "images").mkdir(parents=True, exist_ok=True)
    errors, costs = approximation.measure_errors(study), approximation.measure_costs(study)
    measured_on = f"{describe('cpu')}; {versions()}; commit {commit()}"
    picture = output / "images" / "bucketing.png"
    approximation.plot(errors, picture)
    report = approximation.write_report(study, errors, costs, measured_on)
    (output / "bucketing.md").write_text(report)
    print(f"Wrote {output / 'bucketing.md'} and {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
