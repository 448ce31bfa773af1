"""Quick forms of the commands in the documents, and the commands that cannot run in tests."""

import re
from collections.abc import Callable
from typing import NamedTuple

CONFIG = "configs/quick/faster_rcnn_R_18_FPN_rs_300it.py"
ATSS = "quick/atss_R_18_FPN_brs_300it"
CO_DETR = "projects/co_detr/configs"
SHAPES = "datasets/shapes"
# Installed programs, which are files of the clone too.
INSTALLED = {
    "brloss-train": "train_net.py",
    "brloss-predict": "demo/demo.py",
    "brloss-analyze": "tools/analyze_detections.py",
    "brloss-convert": "tools/convert_checkpoint.py",
    "brloss-export": "tools/export.py",
    "brloss-env": "tools/env.py",
    "brloss-share": "tools/share.py",
    "brloss-configs": "tools/list_configs.py",
    "brloss-data": "tools/convert_data.py",
}
# Placeholders in the text, such as files of the reader.
PLACEHOLDERS = {
    "CONFIG": CONFIG,
    "FOLDER": SHAPES,
    "Platelets": "circle",
    "WBC": "circle",
    "train.init_checkpoint=mobilenet_v2.pth": "train.init_checkpoint=",
    # The 1203 classes of LVIS take most of a minute; the recipe is read by the tests of configs.
    "configs/lvis_v1/mask_rcnn_R_50_FPN_rs_1x.py": "configs/coco/mask_rcnn_R_50_FPN_rs_1x.py",
    f"{CO_DETR}/co_deformable_detr_R_50_brs_1x.py": (
        f"{CO_DETR}/quick/co_deformable_detr_R_18_brs_300it.py"
    ),
}
VARIABLES = {"BCCD": SHAPES, "DEEPPCB": SHAPES, "NUTS": SHAPES}
CUSTOM_DATA = [
    f"data.train={SHAPES}/annotations/instances_train.json",
    f"data.train_images={SHAPES}/train",
    f"data.val={SHAPES}/annotations/instances_val.json",
    f"data.val_images={SHAPES}/val",
]
# (pattern, why it cannot run). Checked instead: the targets of make, the paths of pip and pytest,
# and for train_net.py that arguments and overrides of the config are valid.
NOT_RUN = [
    (r"^(python -m )?pip install ", "downloads"),
    (r"^python -m pytest ", "tests of the checkout"),
    (r"^python3 -m venv ", "the test has its own environment"),
    (r"^\.venv/bin/pre-commit ", "changes the hooks of a clone"),
    (r"^source ", "there is no virtual environment in the folder of the test"),
    (r"^make\b", "fills a virtual environment"),
    (r"^python tools/list_configs\.py --write-docs", "writes documents of the checkout"),
    (r"^python train_net\.py .*train\.wandb=", "needs an account"),
    (r"^python train_net\.py .*train\.compile=", "compiles for minutes"),
    (r"^python train_net\.py .*train\.expected_results=", "fails after one iteration, as it says"),
    (r"^python train_net\.py .*co_deformable_detr.* --eval-only", "needs trained weights"),
    (r"^python tools/convert_checkpoint\.py .*co_deformable_detr", "needs published weights"),
]
# Programs that do not depend on earlier commands: the same quick form runs once for all documents.
ONCE = ("benchmarks/losses.py", "benchmarks/bucketing.py", "tools/compare_losses.py")
# Arguments added to those of a program; the last value of an option counts.
QUICK = {
    "tools/make_shapes.py": ["--train", "12", "--val", "4", "--overwrite"],
    "tools/make_miniatures.py": ["--train", "4", "--val", "2", "--output", "miniatures"],
    "benchmarks/record_scores.py": [
        *("--iterations", "3", "--window", "1", "--output", "scores.json"),
    ],
    "benchmarks/losses.py": [
        *("--quick", "--device", "cpu", "--threads", "1", "--output", "benchmark"),
        *("--scores", "synthetic", "--losses", "focal", "rs"),
    ],
    "benchmarks/detectors.py": ["--quick", "--device", "cpu", "--output", "detectors.csv"],
    "benchmarks/inference.py": ["--quick", "--device", "cpu", "--output", "inference.csv"],
    "benchmarks/device_costs.py": ["--only", "bap", "--output", "costs.csv"],
    "benchmarks/throughput.py": [
        *("--loader", ATSS, "--most", "1", "--rounds", "1", "--workers", "1"),
        *("--output", "throughput.csv"),
    ],
    "benchmarks/bucketing.py": ["--quick", "--output", "bucketing"],
    "tools/draw_losses.py": ["--losses", "ap", "--output", "pictures"],
    "tools/compare_losses.py": [
        *("--seeds", "1", "--evaluations", "1", "--iterations", "2", "--images", "4"),
    ],
    "tools/show_data.py": [
        *("--output", "data.png", "--images", "1", "data.short_side=64"),
    ],
    "tools/analyze_detections.py": ["--worst-images", "1"],
    "tools/draw_zoo.py": ["--output", "zoo.png"],
    "tools/gpu_report.py": ["--list"],
    "demo/demo.py": [
        *("--device", "cpu"),
        *("--opts", "dataloader.test.mapper.augmentations.0.short_edge_length=64"),
    ],
}
SMALL = [
    "train.device=cpu",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.train.total_batch_size=1",
    "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    "train.show_data=False",
]
# Most weights of these recipes are in two layers, and most of the time of one iteration.
WIDE = re.compile("(faster|mask)_rcnn_R_50_")
FEW_WEIGHTS = [
    "model.roi_heads.box_head.fc_dims=[64, 64]",
    "model.roi_heads.box_predictor.input_shape.channels=64",
]
# Most of the time of the other two parts is that of masks.
NARROW_MASKS = ["model.roi_heads.mask_head.conv_dims=[16,16]"]


class Quick(NamedTuple):
    """A Python program with arguments, or why there is none to run."""

    words: list[str]
    why_not: str = ""


def quick_form(words: list[str]) -> Quick:
    """Return the quick form of a command, whose first word is a program.

    Raises:
        LookupError: the tables know nothing of it.
    """
    words = [PLACEHOLDERS.get(w, w) for w in _without_launcher(words) if "=..." not in w]
    line = " ".join(words)
    for pattern, reason in NOT_RUN:
        if re.match(pattern, line):
            return Quick(words, reason)
    if words[:2] == ["python", "-c"]:
        return Quick(words[1:])
    if words[0] != "python" or len(words) < 2 or not words[1].endswith(".py"):
        raise LookupError(f"neither run nor listed as a command that cannot run: {line}")
    script, *arguments = words[1:]
    change: Callable[[list[str]], list[str]] = {
        "train_net.py": _training,
        "benchmarks/detectors.py": _first_config,
        "benchmarks/inference.py": _first_config,
        "tools/compare_losses.py": _last_loss,
    }.get(script, list)
    return Quick([script, *change(arguments), *QUICK.get(script, [])])


def runs_once(words: list[str]) -> bool:
    """Say whether a quick form does the same wherever it is: one of `ONCE`, or a new training."""
    new = words[0] == "train_net.py" and not {"--resume", "--eval-only"} & set(words)
    return new or words[0] in ONCE


def _without_launcher(words: list[str]) -> list[str]:
    """One process of the clone, whatever `torchrun`, `srun` and installed programs start."""
    if words[0] in ("torchrun", "srun") and "train_net.py" in words:
        return ["python", *words[words.index("train_net.py") :]]
    if words[0] in INSTALLED:
        return ["python", INSTALLED[words[0]], *words[1:]]
    return [(words[0] == ".venv/bin/python" and "python") or words[0], *words[1:]]


def _training(arguments: list[str]) -> list[str]:
    for option in ("--num-gpus", "--num-machines", "--machine-rank", "--dist-url"):
        while option in arguments:
            at = arguments.index(option)
            arguments = arguments[:at] + arguments[at + 2 :]
    option = "--config" if "--config" in arguments else "--config-file"
    config = arguments[arguments.index(option) + 1]
    evaluates, keys = "--eval-only" in arguments, {a.split("=")[0] for a in arguments}
    if "--resume" in arguments and config.endswith(".yaml"):
        return arguments + SMALL[:3]  # a run continues with its own schedule only
    added = list(SMALL)
    if "data.augment" in keys:  # whose steps are others
        added = [x for x in SMALL if ".augmentations." not in x] + ["data.short_side=64"]
    if "/quick/" in config and not {"data.train", "data.val"} & keys:
        added += CUSTOM_DATA
    elif "rcnn" in config:
        # Untrained, a million classes of boxes pass a lower one.
        added += ["model.roi_heads.box_predictor.test_score_thresh=0.99"]
    if not evaluates:
        # Of at most 20 images, in batches of one.
        length = "train.epochs" if "train.epochs" in keys else "train.max_iter"
        added += [{"train.epochs": "train.epochs=0.05"}.get(length, "train.max_iter=1")]
        # Later commands use a run that has learned something, see RUNS.
        added += [] if "--resume" in arguments else ["train.output_dir=quick"]
        if "train.init_checkpoint" not in keys:
            added += ["train.init_checkpoint=", *(FEW_WEIGHTS if WIDE.search(config) else [])]
            added += NARROW_MASKS if "mask_rcnn" in config else []
    return arguments + added


def _first_config(arguments: list[str]) -> list[str]:
    configs = [a for a in arguments if a.endswith(".py")]
    return [a for a in arguments if a not in configs[1:]]


def _last_loss(arguments: list[str]) -> list[str]:
    """A comparison of one loss, seed and setting, with the small detector of its kind."""
    arguments = [a.replace("coco/atss_R_50_FPN_brs_1x", ATSS) for a in arguments]
    for option in {"--losses", "--lr"} & set(arguments):
        at = arguments.index(option) + 1
        arguments[at] = arguments[at].split(",")[-1]
    if "--vary" in arguments:
        at = arguments.index("--vary") + 1
        arguments[at] = arguments[at].split(",")[0]
    for option in {"--lr-grid", "--lr-factors"} & set(arguments):
        at = arguments.index(option)
        several = ["--lr-factors", "1,2"]  # are enough for a choice
        arguments[at : at + 2] = several if "--vary" not in arguments else []
    if "--seeds" in arguments:
        del arguments[arguments.index("--seeds") : arguments.index("--seeds") + 2]
    return arguments
