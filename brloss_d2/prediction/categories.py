"""The names of the classes of a model, and their ids in COCO files."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from brloss_d2.data import CATEGORIES_FILE, read_categories, walk_nodes
from brloss_d2.errors import InputError


@dataclass(frozen=True)
class Categories:
    """What a model calls its labels 0..K-1.

    Attributes:
        names: (K,).
        ids: (K,) `category_id` in COCO files.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    @classmethod
    def of(cls, by_id: Mapping[int, str]) -> "Categories":
        """From id -> name; labels are in the order of the ids, as in training."""
        ids = sorted(by_id)
        return cls(tuple(by_id[i] for i in ids), tuple(ids))

    @classmethod
    def unnamed(cls, count: int) -> "Categories":
        """For a model of which nothing is known: `class 0` with the id 1, ..."""
        return cls(tuple(f"class {i}" for i in range(count)), tuple(range(1, count + 1)))

    @classmethod
    def find(cls, cfg: DictConfig, folder: str, annotations: str | None) -> "Categories":
        """Find the classes of a model.

        Looked for in `annotations`; `categories.json`, which a training on own data leaves in its
        folder; the annotation file of the test data of the config; and what detectron2 knows of
        that data set.

        Args:
            cfg: the config of the model.
            folder: where its weights lie.
            annotations: a COCO file, or None.

        Raises:
            InputError: `annotations` cannot be read or is of another number of classes.
        """
        count = num_classes(cfg.model)
        if annotations is not None:
            found = cls.of(read_categories(annotations))
            if count not in (None, len(found.names)):
                raise InputError(
                    f"{annotations} has {len(found.names)} categories, the model {count} classes."
                )
            return found
        for found in _known(cfg, folder):
            if count in (None, len(found.names)):
                return found
        return cls.unnamed(count or 0)

    def name(self, label: int) -> str:
        """The name of a label, also of one beyond the known ones."""
        return self.names[label] if label < len(self.names) else f"class {label}"

    def category_id(self, label: int) -> int:
        """The id of a label in COCO files."""
        return self.ids[label] if label < len(self.ids) else label + 1


def num_classes(model: DictConfig) -> int | None:
    """The number of foreground classes that the config of a model names; None if it does not."""
    named = [node.get("num_classes") for node in walk_nodes(model) if "num_classes" in node]
    counts = {count for count in named if isinstance(count, int)}
    return counts.pop() if len(counts) == 1 else None


def _known(cfg: DictConfig, folder: str) -> Iterator[Categories]:
    saved = os.path.join(folder, CATEGORIES_FILE)
    if os.path.isfile(saved):
        yield Categories.of(read_categories(saved))
    node = OmegaConf.select(cfg, "dataloader.test.dataset")
    if not isinstance(node, DictConfig):
        return
    json_file = node.get("json_file")
    if json_file is not None and os.path.isfile(json_file):
        yield Categories.of(read_categories(json_file))
    names = node.get("names")
    name = names if isinstance(names, str) or not names else names[0]
    if name and name in DatasetCatalog:
        yield from _registered(name)


def _registered(name: str) -> Iterator[Categories]:
    metadata = MetadataCatalog.get(name)
    names = metadata.get("thing_classes")
    if names:
        labels = metadata.get("thing_dataset_id_to_contiguous_id")
        by_label = {label: i for i, label in labels.items()} if labels else {}
        yield Categories(tuple(names), tuple(by_label.get(i, i + 1) for i in range(len(names))))
