r"""Write a trained model as a folder to give away: weights, config, classes, threshold, model card.

    %(prog)s --output-dir output/a --to shared/a
    %(prog)s --output-dir output/a --to shared/a --weights model_best.pth --format safetensors

`README.md` in the folder is a model card made from the run: data, classes, metrics, threshold and
the command of the training. Check it, and say there who may use the model and for what. Paths of
this machine are left out. `brloss-predict --config-file shared/a` uses the folder; uploaded to the
Hugging Face Hub (`hf upload OWNER/NAME shared/a`) it is `--config-file hf://OWNER/NAME`.
"""

import argparse
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brloss_d2.cli.common import make_parser, run_program
from brloss_d2.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "oLRP")
# Of this machine, in a command.
_FOLDERS = re.compile(r"(?:(?<=[\s=,\[(\"'])|^)(?:~[^/\s]*|\.{1,2})?/(?:[^\s=,\]\"']*/)?")
_PATHS = ("json_file", "image_root", "output_dir", "init_checkpoint")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--output-dir", required=True, help="train.output_dir of the run")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("--weights", default="model_final.pth", help="default: model_final.pth")
    parser.add_argument(
        "--format", choices=("pth", "safetensors"), default="pth", help="of the weights"
    )
    return run_program(_share, parser.parse_args(argv))


def _share(args: argparse.Namespace) -> int:
    import torch
    from detectron2.config import LazyConfig

    from brloss_d2.checkpoint import fingerprint, write_safetensors
    from brloss_d2.checkpoint.contents import read_weights
    from brloss_d2.data import write_categories
    from brloss_d2.engine import load_config
    from brloss_d2.evaluation.calibration import load_calibration, save_calibration
    from brloss_d2.prediction import Categories

    if os.path.exists(args.to):
        raise InputError(f"{args.to} exists: name a new folder.")
    source = os.path.join(args.output_dir, "config.yaml")
    cfg, _ = load_config(source)
    content, weights = read_weights(os.path.join(args.output_dir, args.weights))
    calibration = load_calibration(args.output_dir)
    if calibration is not None and not calibration.is_of(lambda: fingerprint(weights)):
        calibration = None
    categories = Categories.find(cfg, args.output_dir, None)
    classes = categories.names
    iteration = content.get("iteration")
    card = "\n".join(_card(args, cfg, classes, weights, iteration, calibration))
    temporary = f"{os.path.normpath(args.to)}.{os.getpid()}.tmp"
    try:
        os.makedirs(temporary)
        known = {"classes": list(classes)} if content.get("classes") else {}
        if args.format == "safetensors":
            path = os.path.join(temporary, "model.safetensors")
            write_safetensors(path, weights, known.get("classes", ()))
        else:
            torch.save({"model": weights, **known}, os.path.join(temporary, "model_final.pth"))
        _hide_paths(cfg)
        LazyConfig.save(cfg, os.path.join(temporary, "config.yaml"))
        if classes:
            write_categories(temporary, dict(zip(categories.ids, categories.names, strict=True)))
        if calibration is not None:
            computed_on = dict(calibration.computed_on)
            computed_on["annotations"] = os.path.basename(computed_on.get("annotations", ""))
            save_calibration(replace(calibration, computed_on=computed_on), temporary)
        with open(os.path.join(temporary, "README.md"), "w", encoding="utf-8") as file:
            file.write(card)
        os.rename(temporary, args.to)
    except OSError as error:
        raise InputError(f"Cannot write {args.to}: {error.strerror}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"Wrote {args.to}: {', '.join(sorted(os.listdir(args.to)))}")
    return 0


def _hide_paths(cfg: "DictConfig") -> None:
    """Leave the names of files and folders, without those of the folders around them."""
    from omegaconf import OmegaConf

    from brloss_d2.utils.config_nodes import walk_nodes

    for node in walk_nodes(cfg):
        for key in _PATHS:
            value = None if OmegaConf.is_interpolation(node, key) else node.get(key)
            if isinstance(value, str) and "://" not in value:
                node[key] = os.path.basename(os.path.normpath(value)) if value else ""


def _card(
    args: argparse.Namespace,
    cfg: "DictConfig",
    classes: Sequence[str],
    weights: dict[str, Any],
    iteration: int | None,
    calibration: Any,
) -> Iterator[str]:
    """Yield the lines of the model card."""
    from brloss_d2 import __version__
    from brloss_d2.cli.run_facts import training_in_log
    from brloss_d2.utils.config_nodes import dataset_of, learns_masks, names_of, target_of
    from brloss_d2.utils.text import printable

    task = "image-segmentation" if learns_masks(cfg) else "object-detection"
    name = os.path.basename(os.path.normpath(args.to))
    numbers = sum(tensor.numel() for tensor in weights.values())
    model = target_of(cfg.model).__name__
    yield f"---\nlibrary_name: brloss_d2\npipeline_tag: {task}\ntags: [detectron2]\n---\n"
    yield f"# {printable(name)}\n"
    yield f"{model}, {numbers / 1e6:.1f} million weights, trained by brloss_d2 {__version__}.\n"
    yield "## Classes\n"
    yield ", ".join(printable(text, length=40) for text in classes) + "\n"
    yield "## Data\n"
    for split in ("train", "test"):
        node = dataset_of(cfg, split)
        file = os.path.basename(node.get("json_file") or "")
        yield f"* {split}: {', '.join(names_of(node)) or 'unknown'}{file and f' ({file})'}"
    yield "\n## Metrics\n"
    yield from _metrics(args.output_dir, iteration)
    yield "\n## Score threshold\n"
    if calibration is None:
        yield "That of the model: none was chosen by `brloss-analyze` for these weights.\n"
    else:
        count = calibration.computed_on.get("images", "the")
        yield f"{calibration.score_threshold:.4f}, the lowest LRP error on {count} images.\n"
    yield "## Training\n"
    images = (cfg.dataloader.get("train") or {}).get("total_batch_size", "some")
    yield f"{cfg.train.max_iter} iterations of {images} images"
    command = training_in_log(os.path.join(args.output_dir, "log.txt")).get("command", "")
    yield f"\n```sh\n{_FOLDERS.sub('', command)}\n```\n" if command else ""
    yield "## Use\n"
    yield f"```sh\nbrloss-predict --config-file {shlex.quote(name)} --input photo.jpg\n```\n"
    yield "## Limits\n"
    yield "Not described: say what the model is for, and what it must not be used for.\n"


def _metrics(output_dir: str, iteration: int | None) -> Iterator[str]:
    """Yield a table of the evaluation of an iteration in `metrics.json`, in percent.

    That of the last one if it is unknown of which iteration the weights are.
    """
    from tabulate import tabulate

    from brloss_d2.plotting.run_plots import read_metrics

    path = os.path.join(output_dir, "metrics.json")
    found = read_metrics(path) if os.path.isfile(path) else {}
    rows = []
    for task in ("bbox", "segm"):
        curves = {key: found[f"{task}/{key}"] for key in _METRICS if f"{task}/{key}" in found}
        if "AP" not in curves:
            continue
        # The evaluation at the end of a training is written under the number of iterations.
        own = [i for i in curves["AP"][0].tolist() if iteration is None or 0 <= i - iteration <= 1]
        values = {key: dict(curve.T.tolist()).get(own[-1]) for key, curve in curves.items() if own}
        if values:
            shown = [None if v is None or v != v else v for v in map(values.get, _METRICS)]
            rows.append([task, int(own[-1]), *shown])
    if rows:
        yield tabulate(
            rows, ["task", "iteration", *_METRICS], "pipe", floatfmt=".1f", missingval="-"
        )
    else:
        yield "There is no evaluation of these weights in the log of the run."
