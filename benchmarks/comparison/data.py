"""Data to compare on: a folder or four paths, and the first images for a quick look."""

import json
from pathlib import Path
from typing import NamedTuple

from brloss_d2.data import CocoSummary, check_coco_json, read_coco
from brloss_d2.data.coco_file import only_files, read_json
from brloss_d2.errors import InputError

_SUFFIXES = ("", "2017", "2014")  # of COCO's splits


class Data(NamedTuple):
    """COCO-format annotations and image folders of both splits."""

    train: Path
    train_images: Path
    val: Path
    val_images: Path

    @classmethod
    def parse(cls, text: str) -> "Data":
        """Read `train.json,train_images,val.json,val_images`, or a folder with both splits.

        Raises:
            InputError: the text is neither.
        """
        parts = [Path(part).expanduser() for part in text.split(",")]
        if len(parts) == len(cls._fields):
            return cls(*parts)
        if len(parts) > 1:
            raise InputError(
                f"--data has {len(parts)} parts: expected train.json,train_images,val.json,"
                "val_images or one folder."
            )
        (folder,) = parts
        for suffix in _SUFFIXES:
            paths = []
            for split in (f"train{suffix}", f"val{suffix}"):
                paths += [folder / "annotations" / f"instances_{split}.json", folder / split]
            found = cls(*paths)
            if found.train.is_file() and found.val.is_file():
                return found
        raise InputError(
            f"--data={text}: expected a folder with annotations/instances_train.json, train/, "
            "annotations/instances_val.json and val/ (or train2017 and val2017), or four paths: "
            "train.json,train_images,val.json,val_images."
        )

    @property
    def overrides(self) -> list[str]:
        """Overrides of train_net.py that select the data."""
        return [f"data.{key}={path}" for key, path in self._asdict().items()]

    def check_train(self) -> CocoSummary:
        """Check the training split.

        Raises:
            InputError: the split has mistakes.
        """
        return check_coco_json(str(self.train), str(self.train_images))

    def first(self, count: int, folder: Path) -> "Data":
        """Select the first images of both splits.

        Args:
            count: number of images per split.
            folder: folder for the two JSON files of the selection.

        Returns:
            Data with these files.

        Raises:
            InputError: an annotation file has mistakes.
        """
        self.check_train()
        check_coco_json(str(self.val), str(self.val_images), key="data.val")
        folder.mkdir(parents=True, exist_ok=True)
        cut = {}
        for split, path in (("train", self.train), ("val", self.val)):
            images = sorted(read_coco(str(path), masks=False).images, key=lambda r: r["id"])
            names = {image["file_name"] for image in images[:count]}
            content = only_files(read_json(str(path), str(path)), names)
            cut[split] = folder / f"first_{count}_{split}.json"
            cut[split].write_text(json.dumps(content), encoding="utf-8")
        return self._replace(**cut)
