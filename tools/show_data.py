r"""Show the training data as the model gets them: one sheet with images, classes and sizes.

    python tools/show_data.py --config-file quick/atss_R_18_FPN_rs_300it data.train=datasets/cards
    python tools/show_data.py --config-file output/a/config.yaml --images 16 --output data.png

Boxes and masks are drawn after all augmentations. Below are the objects of each class, and the
sizes of objects next to those of the anchors. Nothing is trained.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence

from brloss_d2.cli.common import find_config, make_parser, positive_int, run_program
from brloss_d2.utils.files import check_folder_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        *("--config-file", "--config"),
        required=True,
        help="config file, config.yaml of a run, or name in the model zoo",
    )
    parser.add_argument("--output", default="data.png", help="picture (default: data.png)")
    parser.add_argument(
        "--images", type=positive_int, default=8, help="number of images (default: 8)"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY=VALUE", help="changes to the config, data.train=... too"
    )
    return run_program(_show, parser.parse_intermixed_args(argv))


def _show(args: argparse.Namespace) -> int:
    from brloss_d2.data import in_order
    from brloss_d2.engine import load_config
    from brloss_d2.engine.classes import read_dataset_categories, registered_classes
    from brloss_d2.engine.data_sheet import look_at_data, note_on_sizes
    from brloss_d2.plotting.data_sheet import draw_data_sheet

    check_folder_of(args.output)
    with tempfile.TemporaryDirectory() as folder:  # for the COCO files of data.train=FOLDER
        opts = [*args.opts, f"train.output_dir={folder}"]
        cfg, custom_data = load_config(find_config(args.config_file), opts)
        if custom_data is not None:
            custom_data.write_split()
            print(custom_data.table(most_classes=20))
        categories = read_dataset_categories(cfg, custom_data)
        names = in_order(categories) if categories else registered_classes(cfg)
        sheet = look_at_data(cfg, names, images=args.images)
        draw_data_sheet(sheet, args.output)
    if note := note_on_sizes(sheet):
        print(f"Note: {note}")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
