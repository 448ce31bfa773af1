"""Draw how each loss works: the pictures of docs/losses.md.

    python tools/draw_losses.py                          # all, to docs/losses
    python tools/draw_losses.py --losses rs --output x   # one, elsewhere

What they show is computed by the losses of the package, on the handful of scores in
`loss_pictures/scene.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from loss_pictures import PICTURES, STYLE
from matplotlib import pyplot as plt

from brloss_d2.errors import InputError
from brloss_d2.plotting.figures import save_figure

OUTPUT = Path(__file__).parents[1] / "docs" / "losses"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--losses", nargs="+", choices=PICTURES, default=list(PICTURES), help="default: all"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder (default: docs/losses)")
    args = parser.parse_args(argv)
    try:
        with plt.rc_context(STYLE):
            for name in args.losses:
                figure = PICTURES[name]()
                save_figure(figure, str(args.output / f"{name}.png"))
                plt.close(figure)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {', '.join(f'{name}.png' for name in args.losses)} to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
