"""Class names of a model, and their ids in COCO files."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from brloss_d2.data import CATEGORIES_FILE, in_order, read_categories
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import dataset_of, names_of, walk_nodes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Categories:
    """Names of the labels 0..K-1 of a model.

    Attributes:
        names: K class names.
        ids: K values of `category_id` in COCO files.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    @classmethod
    def of(cls, by_id: Mapping[int, str]) -> "Categories":
        """Build them from id -> name; labels are in the order of the ids, as in training."""
        return cls(tuple(in_order(by_id)), tuple(sorted(by_id)))

    @classmethod
    def unnamed(cls, count: int) -> "Categories":
        """Build them for a model with unknown classes: `class 0` with the id 1, and so on."""
        return cls(tuple(f"class {i}" for i in range(count)), tuple(range(1, count + 1)))

    @classmethod
    def find(cls, cfg: DictConfig, folder: str, annotations: str | None) -> "Categories":
        """Find the classes of a model.

        The sources are, in this order: `annotations`; `categories.json`, which a training on a
        custom dataset leaves in its folder; the annotation file of the config's test dataset; and
        detectron2's metadata of that dataset.

        Args:
            cfg: config of the model.
            folder: folder of its weights.
            annotations: COCO file, or None.

        Raises:
            InputError: `annotations` cannot be read, or has another number of classes.
        """
        counts = {node.get("num_classes") for node in walk_nodes(cfg.model)}
        counts = {count for count in counts if isinstance(count, int)}
        count = counts.pop() if len(counts) == 1 else None
        if annotations is not None:
            found = cls.of(read_categories(annotations))
            if count not in (None, len(found.names)):
                raise InputError(
                    f"{annotations} has {len(found.names)} categories, the model {count} classes."
                )
            return found
        for source, found in _known(cfg, folder):
            if count in (None, len(found.names)):
                return found
            logger.warning(
                "%s has %d classes, the model %d: its names are not used.",
                *(source, len(found.names), count),
            )
        logger.warning(
            "The names of the classes are not known: they are called class 0, class 1, ... Name a "
            "COCO file with them (--annotations)."
        )
        return cls.unnamed(count or 0)

    def look_up(self, labels: Sequence[int]) -> tuple[list[str], list[int]]:
        """Return the names and ids of labels, also of labels beyond the known ones."""
        missing = range(len(self.names), max(labels, default=-1) + 1)
        names = (*self.names, *(f"class {label}" for label in missing))
        ids = (*self.ids, *(label + 1 for label in missing))
        return [names[label] for label in labels], [ids[label] for label in labels]


def _known(cfg: DictConfig, folder: str) -> Iterator[tuple[str, Categories]]:
    """Yield the categories that the files and the metadata of a config name, each with its name."""
    node = dataset_of(cfg, "test")
    for file in (os.path.join(folder, CATEGORIES_FILE), node.get("json_file")):
        if file is not None and os.path.isfile(file):
            try:
                yield file, Categories.of(read_categories(file))
            except InputError as error:
                logger.warning("%s Its names are not used.", error)
    for name in names_of(node)[:1]:
        metadata = MetadataCatalog.get(name)
        if name in DatasetCatalog and (classes := metadata.get("thing_classes")):
            label_of_id = metadata.get("thing_dataset_id_to_contiguous_id") or {}
            id_of_label = {label: i for i, label in label_of_id.items()}
            ids = tuple(id_of_label.get(label, label + 1) for label in range(len(classes)))
            yield name, Categories(tuple(classes), ids)
