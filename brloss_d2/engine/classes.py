"""Classes of weights and of data: weights do not say which class a label stands for."""

import logging
import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from brloss_d2.data import CATEGORIES_FILE, CustomDataSummary, in_order, read_categories
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import dataset_of, names_of
from brloss_d2.utils.text import first_few

logger = logging.getLogger(__name__)


def read_dataset_categories(
    cfg: DictConfig, custom_data: CustomDataSummary | None
) -> dict[int, str] | None:
    """Return category id -> name of the dataset; None if it is not given as a JSON file.

    Args:
        cfg: effective config.
        custom_data: contents of the custom dataset, which need not be read again.

    Raises:
        InputError: the file is damaged or has no categories.
    """
    if custom_data is not None:
        return custom_data.categories
    for split in ("test", "train"):
        if json_file := dataset_of(cfg, split).get("json_file"):
            return read_categories(json_file)
    return None


def registered_classes(cfg: DictConfig) -> Sequence[str]:
    """Return the classes of a dataset that is known by name; none if they are unknown."""
    for split in ("train", "test"):
        for name in names_of(dataset_of(cfg, split)):
            if name in DatasetCatalog:
                return MetadataCatalog.get(name).get("thing_classes", ())
    return ()


def check_classes(
    checkpoint: str, classes: Sequence[str], *, must_agree: bool, learned: Sequence[str] = ()
) -> None:
    """Compare the classes of data with those of weights, in `categories.json` next to them.

    Args:
        checkpoint: path of the weights.
        classes: names of the data by label, none if they are unknown.
        must_agree: whether other classes are refused; a fine-tuning may have them, and is only
            warned of the same names in another order.
        learned: names by label in the checkpoint itself, used if there is no such file.

    Raises:
        InputError: names or their order differ, and must not.
    """
    if not classes:
        return
    file_name = os.path.join(os.path.dirname(checkpoint.partition("?")[0]), CATEGORIES_FILE)
    if os.path.isfile(file_name):
        learned = in_order(read_categories(file_name))
    else:
        file_name = checkpoint
    old, new = list(learned), list(classes)
    if not old or old == new:
        return
    if sorted(old) == sorted(new):
        moved = [f"{a!r} is now {b!r}" for a, b in zip(old, new, strict=True) if a != b]
        text = (
            f"The classes of the data are those of {file_name} in another order: "
            f"{first_few(moved)}. Labels follow the ids: give the categories that order."
        )
        if not must_agree:
            logger.warning("%s Otherwise the weights of the classes start out swapped.", text)
            return
    else:
        lost, added = (
            first_few([repr(n) for n in x if n not in y]) or "none"
            for x, y in ((old, new), (new, old))
        )
        text = (
            f"The weights were trained for other classes ({file_name}) than those of the data. "
            f"Only in the weights: {lost}; only in the data: {added}. Use the data of that run, "
            "or train on these with train.init_checkpoint=FILE and another train.output_dir."
        )
    if must_agree:
        raise InputError(text)
