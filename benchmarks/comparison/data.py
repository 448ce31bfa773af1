"""Data to compare on: a folder or paths, the first images for a quick look, a split to test on."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from brloss_d2.data import CocoSummary, check_coco_json, read_coco
from brloss_d2.data.coco_file import only_files, read_json
from brloss_d2.data.sources import Source, divided
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted, first_few

_SUFFIXES = ("", "2017", "2014")  # of COCO's splits


class Data(NamedTuple):
    """COCO-format annotations and image folders of the splits; None for no split to test on."""

    train: Path
    train_images: Path
    val: Path
    val_images: Path
    test: Path | None = None
    test_images: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Data":
        """Read `train.json,train_images,val.json,val_images`, or a folder with both splits.

        A split to test on may follow, or be in the folder.

        Raises:
            InputError: the text is neither.
        """
        parts = [Path(part).expanduser() for part in text.split(",")]
        if len(parts) in (4, 6):
            return cls(*parts)
        if len(parts) > 1:
            raise InputError(
                f"--data has {len(parts)} parts: expected train.json,train_images,val.json,"
                "val_images (and test.json,test_images) or one folder."
            )
        (folder,) = parts
        for suffix in _SUFFIXES:
            paths = []
            for split in ("train", "val", "test"):
                file = folder / "annotations" / f"instances_{split}{suffix}.json"
                paths += [file, folder / f"{split}{suffix}"]
            found = cls(*(paths if paths[4].is_file() else paths[:4]))
            if found.train.is_file() and found.val.is_file():
                return found
        raise InputError(
            f"--data={text}: expected a folder with annotations/instances_train.json, train/, "
            "annotations/instances_val.json and val/ (or train2017 and val2017), or four paths: "
            "train.json,train_images,val.json,val_images. tools/convert_data.py makes them from "
            "YOLO, VOC and other folders, with --val-fraction from one without a validation split."
        )

    @property
    def overrides(self) -> list[str]:
        """Overrides of train_net.py that select the data to train with."""
        return [f"data.{key}={path}" for key, path in self._asdict().items() if key[:4] != "test"]

    @property
    def test_overrides(self) -> list[str]:
        """Overrides of train_net.py that evaluate on the split to test on."""
        return [f"data.val={self.test}", f"data.val_images={self.test_images}"]

    def check_train(self) -> CocoSummary:
        """Check the training split.

        Raises:
            InputError: the split has mistakes.
        """
        return check_coco_json(str(self.train), str(self.train_images))

    def first(self, count: int, folder: Path) -> "Data":
        """Select the first images of all splits.

        Args:
            count: number of images per split.
            folder: folder for the JSON files of the selection.

        Returns:
            Data with these files.

        Raises:
            InputError: an annotation file has mistakes.
        """
        self.check_train()
        check_coco_json(str(self.val), str(self.val_images), key="data.val")
        folder.mkdir(parents=True, exist_ok=True)
        cut = {}
        for split in ("train", "val", *(("test",) if self.test else ())):
            path = getattr(self, split)
            images = sorted(read_coco(str(path), masks=False).images, key=lambda r: r["id"])
            names = {image["file_name"] for image in images[:count]}
            content = only_files(read_json(str(path), str(path)), names)
            cut[split] = folder / f"first_{count}_{split}.json"
            cut[split].write_text(json.dumps(content), encoding="utf-8")
        return self._replace(**cut)

    def with_test(self, fraction: float, folder: Path) -> "Data":
        """Return data with a split to test on: their own, or a part of the validation split.

        The part is chosen by a digest of the names of the images: the same ones each time.

        Args:
            fraction: part of the validation split to test on if there is nothing else, in (0, 1).
            folder: folder for the JSON files of both parts, named by their content.

        Raises:
            InputError: there is one image only, or one is in two splits.
        """
        if self.test is None:
            self._check_apart("val", "train")
            if len(self.images("val")) < 2:
                raise InputError(f"{self.val}: one image cannot be split into validation and test.")
            source = Source("data.val", f"data.val={self.val}", str(self.val), str(self.val_images))
            parts = divided(source, fraction, str(folder))
            folder.mkdir(parents=True, exist_ok=True)
            files = []
            for key, part in (("data.val", parts["train"]), ("data.test", parts["val"])):
                new = replace(part, key=key).written(str(folder))
                if not new.content["annotations"]:
                    raise InputError(f"{self.val}: no objects in a part of {fraction:g}.")
                files.append(Path(new.json_file))
                files[-1].write_text(new.text, encoding="utf-8")
            return self._replace(val=files[0], test=files[1], test_images=self.val_images)
        check_coco_json(str(self.test), str(self.test_images), key="test")
        self._check_apart("test", "val", "train")
        return self

    def _check_apart(self, *splits: str) -> None:
        images = {split: self.images(split) for split in splits}
        for split, other in combinations(splits, 2):
            shared = sorted(images[split] & images[other])
            if shared:
                raise InputError(
                    f"{getattr(self, split)}: {counted(len(shared), 'image')} "
                    f"{'is' if len(shared) == 1 else 'are'} in {getattr(self, other)} too: "
                    f"{first_few(shared)}."
                )

    def images(self, split: str) -> set[str]:
        """Return the paths of the images of a split."""
        root = getattr(self, f"{split}_images").resolve()
        content = read_coco(str(getattr(self, split)), masks=False)
        return {str(root / image["file_name"]) for image in content.images}
