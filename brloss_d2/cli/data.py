"""Say what a folder of images and labels contains, and write it in COCO format.

    %(prog)s datasets/cards
    %(prog)s datasets/cards --val-fraction 0.2 --output datasets/cards_coco
    %(prog)s datasets/cards --classes ace king --output datasets/two_cards

COCO, LabelMe, Pascal VOC, YOLO, Roboflow's exports of these, and masks in files of their own are
recognized; docs/data.md describes them. Training needs no conversion: data.train=FOLDER reads the
same folders.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from brloss_d2.cli.common import fraction, make_parser, run_program
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted, printable

if TYPE_CHECKING:
    from brloss_d2.data.sources import Source


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", help="folder of the labels, and of the images")
    parser.add_argument("--images", help="folder of the images, if it is another")
    parser.add_argument("--output", help="folder for instances_train.json and the like")
    parser.add_argument(
        "--val-fraction",
        type=fraction,
        metavar="0.x",
        help="part of the images to set aside, the same as data.val_fraction",
    )
    classes = "classes to keep; their images and all others stay"
    parser.add_argument("--classes", nargs="+", metavar="NAME", help=classes)
    return run_program(_tell_and_convert, parser.parse_args(argv))


def _tell_and_convert(args: argparse.Namespace) -> int:
    from brloss_d2.data.custom import CustomDataSummary, check_same_classes

    sources = _read(args)
    if args.classes:
        sources = {split: _only(source, args.classes) for split, source in sources.items()}
    checked = {split: source.check(masks=False) for split, source in sources.items()}
    check_same_classes(checked)
    test = checked.pop("test", None)
    if checked:
        print(CustomDataSummary(checked.get("train"), checked.get("val")))
    if test is not None:
        print(f"test: {counted(test.boxes, 'box')} in {counted(test.images, 'image')}")
    records = [record for s in sources.values() for record in s.content["annotations"]]
    masks = sum(bool(record.get("segmentation")) for record in records)
    print(f"Objects with masks: {masks:,} of {len(records):,}.")
    if args.output:
        _write(sources, args.output)
    return 0


def _read(args: argparse.Namespace) -> dict[str, "Source"]:
    """Return the annotations of each split; those of a folder without splits are for training."""
    from brloss_d2.data import read_folder
    from brloss_d2.data.sources import divided, of_folder

    where = printable(args.folder)
    if args.images is not None and not os.path.isdir(args.images):
        raise InputError(f"--images {printable(args.images)}: there is no such folder.")
    try:
        folder = read_folder(args.folder, args.images)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    sources = {
        split or "train": of_folder(folder, split, args.output or "") for split in folder.parts
    }
    if args.val_fraction is None:
        return sources
    if len(sources) > 1:
        raise InputError(f"{where}: it has splits ({', '.join(sources)}): no --val-fraction.")
    (source,) = sources.values()
    return divided(source, args.val_fraction, args.output or "")


def _only(source: "Source", classes: Sequence[str]) -> "Source":
    """Return annotations of some classes, after a check."""
    from brloss_d2.data.coco_file import only_classes

    source.check(masks=False)
    try:
        return replace(source, content=only_classes(source.content, classes))
    except InputError as error:
        raise InputError(f"--classes, {source.where}: {error}") from error


def _write(sources: Mapping[str, "Source"], output: str) -> None:
    """Write all splits, and print the keys that train with them."""
    from brloss_d2.utils.files import write_text

    files = {split: os.path.join(output, f"instances_{split}.json") for split in sources}
    for file in files.values():
        if os.path.exists(file):
            raise InputError(f"{printable(file)} exists: choose another --output.")
    print("Train with")
    for split, source in sources.items():
        write_text(files[split], source.text)
        key = "val" if split == "test" else split
        end = "  (--eval-only)" if split == "test" else ""
        print(f"  data.{key}={files[split]} data.{key}_images={source.image_root}{end}")
