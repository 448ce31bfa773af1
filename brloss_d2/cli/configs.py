"""List the configs that come with the package, or show what one of them trains.

    %(prog)s --loss brs --detector mask_rcnn
    %(prog)s mask_rcnn 3x
    %(prog)s coco/atss_R_50_FPN_brs_1x

A NAME that is no config lists those whose names contain it; if there is only one, its card is
shown. The published numbers belong to the recipes; they were not measured with this package, see
docs/model_zoo.md.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from brloss_d2.cli.common import find_config, make_parser, run_program

_FILTERS = ("data", "detector", "backbone", "loss", "schedule")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="config, path of one, or part of its name"
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
    from brloss_d2.model_zoo.configs import config_files
    from brloss_d2.model_zoo.documents import documents, with_tables

    if args.write_docs:
        for path in documents():
            path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
            print(path)
        return 0
    chosen = {key: getattr(args, key) for key in _FILTERS if getattr(args, key) is not None}
    entries = model_zoo.list_configs(**chosen)
    files = [name for name in args.names if os.path.isfile(name)]
    known = [n for n in args.names if n in files or n.removesuffix(".py") in config_files()]
    if len(known) == len(args.names) > 0:
        names = known
    else:
        wanted = [name.lower() for name in args.names]
        names = [e.name for e in entries if all(part in e.name.lower() for part in wanted)]
        if not names:  # an error with similar names
            model_zoo.config_file(next(name for name in args.names if name not in known))
    if args.files:
        print("\n".join(map(find_config, names)))
    elif args.names and names in (known, names[:1]):
        if files:
            from brloss_d2.engine import load_config

            for file in files:  # tells what is wrong with one of the user
                load_config(file)
        print("\n\n".join(map(model_zoo.describe, names)))
    else:
        print(model_zoo.summary([entry for entry in entries if entry.name in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
