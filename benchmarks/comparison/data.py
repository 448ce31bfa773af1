"""The user's data: a folder or four paths, and a cut of it for a quick look."""

import json
from pathlib import Path
from typing import NamedTuple

from brloss_d2.data import CocoSummary, check_coco_json
from brloss_d2.errors import InputError

_LAYOUTS = ("", "2017", "2014")  # what COCO appends to its splits


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
            InputError: neither.
        """
        parts = [Path(part).expanduser() for part in text.split(",")]
        if len(parts) == len(cls._fields):
            return cls(*parts)
        if len(parts) > 1:
            raise InputError(
                f"--data has {len(parts)} parts: expected train.json,train_images,val.json,"
                "val_images or one folder."
            )
        for suffix in _LAYOUTS:
            found = cls._in_folder(parts[0], suffix)
            if found.train.is_file() and found.val.is_file():
                return found
        raise InputError(
            f"--data={text}: expected a folder with annotations/instances_train.json, train/, "
            "annotations/instances_val.json and val/ (or train2017 and val2017), or four paths: "
            "train.json,train_images,val.json,val_images."
        )

    @classmethod
    def _in_folder(cls, folder: Path, suffix: str) -> "Data":
        files = []
        for split in (f"train{suffix}", f"val{suffix}"):
            files += [folder / "annotations" / f"instances_{split}.json", folder / split]
        return cls(*files)

    @property
    def overrides(self) -> list[str]:
        """The `data.*` keys of train_net.py."""
        return [f"data.{key}={path}" for key, path in self._asdict().items()]

    def check_train(self) -> CocoSummary:
        """Check the training split.

        Raises:
            InputError: something is wrong with it.
        """
        return check_coco_json(str(self.train), str(self.train_images))

    def first(self, count: int, folder: Path) -> "Data":
        """The first images of both splits: writes two JSON files to `folder`.

        Raises:
            InputError: a file is no COCO-format JSON.
        """
        self.check_train()
        check_coco_json(str(self.val), str(self.val_images), key="data.val")
        folder.mkdir(parents=True, exist_ok=True)
        cut = {}
        for split in ("train", "val"):
            content = json.loads(getattr(self, split).read_text(encoding="utf-8"))
            cut[split] = folder / f"first_{count}_{split}.json"
            cut[split].write_text(json.dumps(_first_images(content, count)), encoding="utf-8")
        return self._replace(**cut)


def _first_images(content: dict, count: int) -> dict:
    images = sorted(content["images"], key=lambda image: image["id"])[:count]
    kept = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in kept]
    return {**content, "images": images, "annotations": annotations}
