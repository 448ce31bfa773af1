"""Make classes rare: training data in which they have 1, 10 or 100 times fewer objects.

    python tools/make_imbalanced.py --data datasets/shapes --rare circle --output datasets/rare

All ratios have the same images and the same objects of the other classes; a rare class keeps the
mean number of their objects divided by the ratio, and what it has at a larger ratio it has at a
smaller one too. Objects that are left out are painted over from their surroundings, since they
would be background with an object in it; not where an object that stays lies over them, which is
reported. The validation split, which is not changed, is divided into images to validate and images
to test on, with as equal numbers of objects of each class as some hundred divisions allow.

Writes ratio_1.json and ratio_1/ and so on, val.json and test.json, and prints what
tools/compare_losses.py needs.
"""

import argparse
import json
import math
import shlex
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image
from tabulate import tabulate

from brloss_d2.cli.common import make_parser, run_program
from brloss_d2.data import check_coco_json, read_folder, read_image
from brloss_d2.data.coco_file import only_files
from brloss_d2.data.folders.records import Part
from brloss_d2.data.masks import to_rle
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted

_DIVISIONS = 300
_MARGIN = 2  # pixels around an object that are painted over with it
_RADIUS = 3  # pixels from which a pixel is painted
_TOLERANCE = 0.1  # relative difference of a ratio from that asked for
_VISIBLE = 0.1  # part of an object that may stay visible


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    option = parser.add_argument
    option("--data", required=True, help="folder with a training and a validation split")
    option("--rare", required=True, metavar="CLASS,CLASS", help="classes to make rare")
    option("--ratios", default="1,10,100", help="objects of other classes per object (1,10,100)")
    option("--seed", type=int, default=0, help="seed of what is left out and of the division (0)")
    option("--output", type=Path, required=True, help="folder to create")
    return run_program(_write, parser.parse_args(argv))


def _write(args: argparse.Namespace) -> int:
    if args.output.exists():
        raise InputError(f"{args.output} exists: choose another --output.")
    ratios = _ratios(args.ratios)
    if args.seed < 0:
        raise InputError(f"--seed={args.seed}: expected a number of at least 0.")
    try:
        folder = read_folder(args.data)
    except InputError as error:
        raise InputError(f"{args.data}: {error}") from error
    if not {"train", "val"} <= set(folder.parts):
        raise InputError(
            f"{args.data}: expected a folder with a training and a validation split, such as "
            "tools/convert_data.py --val-fraction makes from one split."
        )
    train, val = (folder.parts[split] for split in ("train", "val"))
    for part in (train, val):
        check_coco_json(part.file, part.image_root, content=part.content)
    names = {record["id"]: record["name"] for record in train.content["categories"]}
    wanted = set(args.rare.split(","))
    rare = [id_ for id_, name in names.items() if name in wanted]
    if len(rare) < len(wanted) or len(rare) == len(names):
        known = ", ".join(names.values())
        raise InputError(f"--rare={args.rare}: expected some, not all, of {known}.")
    val_names, test_names = halves(val.content, args.seed)
    files = {
        name: only_files(val.content, kept)
        for name, kept in (("val", val_names), ("test", test_names))
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    visible: dict[float, list[float]] = {}
    with TemporaryDirectory(dir=args.output.parent, prefix=f".{args.output.name}-") as temporary:
        new = Path(temporary, "new")
        for ratio in ratios:
            gone = surplus(train.content["annotations"], rare, list(names), ratio, args.seed)
            content, visible[ratio] = without(train, gone, new / f"ratio_{ratio:g}")
            files[f"ratio_{ratio:g}"] = content
        for name, content in files.items():
            (new / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        new.rename(args.output)
    counts = {n: Counter(a["category_id"] for a in c["annotations"]) for n, c in files.items()}
    rows = [[name, *(counts[file][id_] for file in files)] for id_, name in names.items()]
    print(tabulate(rows, ["objects", *files]))
    for ratio in ratios:
        found = counts[f"ratio_{ratio:g}"]
        _warn(ratio, {name: found[id_] for id_, name in names.items()}, wanted, visible[ratio])
    print("\nCompare losses with")
    parts = ",".join(f"{args.output}/{split}.json,{val.image_root}" for split in ("val", "test"))
    for ratio in ratios:
        start = f"{args.output}/ratio_{ratio:g}"
        print(f"  --data {shlex.quote(f'{start}.json,{start},{parts}')} \\")
    print(f"  --rare {shlex.quote(args.rare)}")
    return 0


def _warn(
    ratio: float, counts: Mapping[str, int], rare: Collection[str], visible: Sequence[float]
) -> None:
    """Say where a ratio is another one than its name, and what could not be painted over.

    Args:
        ratio: mean number of objects of the other classes per object of a rare one, as asked for.
        counts: number of objects by class.
        rare: names of the rare classes.
        visible: part of each object that was left out which was not painted over, 0..1.
    """
    common = np.mean([count for name, count in counts.items() if name not in rare])
    for name in sorted(rare):
        found = common / counts[name] if counts[name] else math.inf
        if abs(found / ratio - 1) > _TOLERANCE:
            objects = counted(counts[name], "object")
            print(f"warning: ratio_{ratio:g}: {name} is 1 : {found:.3g}, with {objects}")
    partly = sum(part > _VISIBLE for part in visible)
    if partly:
        print(
            f"warning: ratio_{ratio:g}: {partly} of {counted(len(visible), 'object')} left out "
            f"remain visible by more than {_VISIBLE:.0%}, below objects that stay"
        )


def _ratios(text: str) -> list[float]:
    try:
        ratios = list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        ratios = []
    if not ratios or not all(1 <= ratio < float("inf") for ratio in ratios):
        raise InputError(f"--ratios={text}: expected numbers of at least 1, such as 1,10,100.")
    return ratios


def surplus(
    annotations: Sequence[dict[str, Any]],
    rare: Sequence[int],
    classes: Sequence[int],
    ratio: float,
    seed: int,
) -> set[int]:
    """Choose the objects that have to be left out.

    Args:
        annotations: objects in COCO format.
        rare: ids of the classes to make rare.
        classes: ids of all classes.
        ratio: mean number of objects of the other classes per object of a rare one, at least 1.
        seed: seed of the choice.

    Returns:
        Indices of the annotations to leave out; at least one object of each class stays.
    """
    counts = Counter(record["category_id"] for record in annotations)
    common = np.mean([counts[id_] for id_ in classes if id_ not in rare])
    kept = max(1, round(common / ratio))
    found: set[int] = set()
    for id_ in rare:
        own = [n for n, record in enumerate(annotations) if record["category_id"] == id_]
        order = np.random.default_rng([seed, id_]).permutation(own)
        found.update(order[kept:].tolist())
    return found


def without(train: Part, left_out: set[int], folder: Path) -> tuple[dict[str, Any], list[float]]:
    """Write images in which some objects are painted over.

    Args:
        train: annotations and folder of the images.
        left_out: indices of the annotations of these objects.
        folder: folder of the new images.

    Returns:
        Content of the COCO file of the new images, and the part of each object left out that could
        not be painted over since objects that stay are there, 0..1.
    """
    try:
        import cv2
    except ImportError as error:
        raise InputError("OpenCV is missing: pip install opencv-python-headless") from error
    of_image = defaultdict(list)
    for number, record in enumerate(train.content["annotations"]):
        of_image[record["image_id"]].append((record, number in left_out))
    images, names = [], {image["file_name"] for image in train.content["images"]}
    visible = []
    for image in train.content["images"]:
        old, new = Path(train.image_root, image["file_name"]), folder / image["file_name"]
        new.parent.mkdir(parents=True, exist_ok=True)
        gone, staying = ([r for r, out in of_image[image["id"]] if out == x] for x in (True, False))
        if not gone:
            shutil.copyfile(old, new)
            images.append(image)
            continue
        pixels, around = read_image(old), np.ones((2 * _MARGIN + 1,) * 2, np.uint8)
        old_place, others = (cv2.dilate(_pixels_of(x, image), around) for x in (gone, staying))
        # From the background alone, not from an object next to it.
        painted = cv2.inpaint(pixels, old_place | others, _RADIUS, cv2.INPAINT_TELEA)
        kept_place = _pixels_of(staying, image)
        pixels = np.where((old_place > kept_place)[..., None], painted, pixels)
        for record in gone:
            own = _pixels_of([record], image)
            visible.append(float((own & kept_place).sum() / max(1, own.sum())))
        name = str(Path(image["file_name"]).with_suffix(".png"))
        if name in names - {image["file_name"]}:
            name = f"{image['file_name']}.png"
        Image.fromarray(pixels).save(folder / name)
        images.append({**image, "file_name": name})
    kept = [r for records in of_image.values() for r, out in records if not out]
    return {**train.content, "images": images, "annotations": kept}, visible


def _pixels_of(records: Sequence[dict[str, Any]], image: dict[str, Any]) -> np.ndarray:
    """Return where objects are, by their masks or else their boxes, (H, W), 0 or 1."""
    size = image["height"], image["width"]
    found = np.zeros(size, np.uint8)
    for record in records:
        x, y, w, h = record["bbox"]
        box = [x, y, x + w, y, x + w, y + h, x, y + h]
        found |= mask_util.decode(to_rle(record.get("segmentation") or [box], *size))
    return found


def halves(content: dict[str, Any], seed: int) -> tuple[set[str], set[str]]:
    """Divide images in two, with as equal numbers of objects of each class as possible.

    Args:
        content: content of a COCO file.
        seed: seed of the divisions among which the best is taken.

    Returns:
        Names of the files of both halves.
    """
    images, classes = ([r["id"] for r in content[key]] for key in ("images", "categories"))
    if len(images) < 2:
        raise InputError("The validation split has one image, which cannot be divided.")
    counts = np.zeros((len(images), len(classes)))
    for record in content["annotations"]:
        counts[images.index(record["image_id"]), classes.index(record["category_id"])] += 1
    total = counts.sum(axis=0).clip(1)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(images)) for _ in range(_DIVISIONS)]
    half = len(images) // 2

    def imbalance(order: np.ndarray) -> float:
        return float((np.abs(2 * counts[order[:half]].sum(axis=0) - total) / total).max())

    best = min(orders, key=imbalance)
    names = np.array([record["file_name"] for record in content["images"]])
    return set(names[best[:half]].tolist()), set(names[best[half:]].tolist())


if __name__ == "__main__":
    sys.exit(main())
