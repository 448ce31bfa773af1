"""What a run trained, as its config and its log tell it."""

import re

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from brloss_d2.utils.config_nodes import dataset_of, names_of, walk

_PACKAGES = ("Python", "PyTorch", "torchvision", "detectron2", "numpy", "GPU 0")
_SPLITS = {"train": "Training data", "test": "Validation data"}
_VALUES = {
    "Learning rate": "optimizer.lr",
    "Iterations": "train.max_iter",
    "Images per iteration": "dataloader.train.total_batch_size",
    "Started from": "train.init_checkpoint",
}


def settings_of(config_file: str) -> dict[str, str]:
    """Return what a resolved config trains, name -> value; what it lacks is left out.

    Args:
        config_file: path of a `config.yaml`; of one that cannot be read, this is said.
    """
    try:
        cfg = LazyConfig.load(config_file)
        losses = [node for path, node in walk(cfg.get("model")) if path.endswith("cls_loss")]
        facts = {
            "Model": _class_of(cfg.get("model")),
            "Loss": ", ".join(dict.fromkeys(filter(None, map(_class_of, losses)))),
        }
        for split, title in _SPLITS.items():
            node = dataset_of(cfg, split)
            files = ", ".join(filter(None, [*names_of(node), node.get("json_file")]))
            facts[title] = files or ("none" if split == "test" else "")
        facts["Optimizer"] = _class_of(cfg.get("optimizer"))
        facts |= {title: OmegaConf.select(cfg, key) for title, key in _VALUES.items()}
    except Exception as error:  # of a damaged file, or of what it names
        return {"Settings": f"config.yaml cannot be read ({type(error).__name__})"}
    return {name: str(value) for name, value in facts.items() if value}


def training_in_log(file: str) -> dict[str, str]:
    """Return `command`, `seed` and versions of the last training that a log tells of.

    Args:
        file: path of the `log.txt` of a run; without one the result is empty.
    """
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            runs = opened.read().split("Command line: ")[1:]
    except OSError:
        return {}
    trainings = [run for run in runs if "--eval-only" not in run.partition("\n")[0]]
    command, _, text = trainings[-1].partition("\n") if trainings else ("", "", "")
    seed = re.search(r"Seed: (\d+)", text)
    found = {"command": command, "seed": seed[1] if seed else ""}
    for name in _PACKAGES:
        row = re.search(rf"^{name} {{2,}}(.*?)(?: @.*| \(.*)?$", text, re.MULTILINE)
        found[name] = row[1] if row else ""
    return {name: value for name, value in found.items() if value}


def _class_of(node: object) -> str:
    """Return the name of the class that a node builds; "" if it builds nothing."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return str(target or "").rpartition(".")[2]
