"""List the configs that come with the package, or show what one of them trains.

    %(prog)s --loss brs --detector mask_rcnn
    %(prog)s coco/atss_R_50_FPN_brs_1x

The published numbers belong to the recipes; they were not measured with this package, see
docs/model_zoo.md.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import make_parser, run_program

_FILTERS = ("data", "detector", "backbone", "loss", "schedule")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="configs to show the recipe card of"
    )
    for key in _FILTERS:
        parser.add_argument(f"--{key}", help=f"list the configs with this {key} only")
    parser.add_argument(
        "--files", action="store_true", help="print the paths of their files instead"
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="bring the tables of docs/model_zoo.md and of the projects up to date",
    )
    return run_program(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    from brloss_d2 import model_zoo
    from brloss_d2.model_zoo.documents import documents, with_tables

    if args.write_docs:
        for path in documents():
            path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
            print(path)
        return 0
    if args.names:
        if args.files:
            print("\n".join(model_zoo.config_file(name) for name in args.names))
        else:
            print("\n\n".join(model_zoo.describe(name) for name in args.names))
        return 0
    chosen = {key: getattr(args, key) for key in _FILTERS if getattr(args, key) is not None}
    entries = model_zoo.list_configs(**chosen)
    if args.files:
        print("\n".join(model_zoo.config_file(entry.name) for entry in entries))
    else:
        print(model_zoo.summary(entries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
