"""The comparison of losses: its parts, and the program from end to end."""

import csv
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.env import seed_all_rng

from brloss_d2.data import load_coco_dataset, write_shapes
from brloss_d2.errors import InputError
from compare_losses import main
from comparison.data import Data
from comparison.notes import criteria_of, differences, notes
from comparison.plot import spread_labels
from comparison.recipe import (
    DETECTORS,
    ONE_STAGE_LOSSES,
    RCNN_LOSSES,
    slim_recipe,
    with_loss,
)
from comparison.report import Study, mean_and_spread, summary_table, write_csv
from comparison.runs import Outcome, Run, execute, outcome
from comparison.tuning import learning_rates

CONFIGS = Path(__file__).parents[2] / "configs"
# All losses of detectors of masks are built in tests/model_zoo.
OF_MASKS = {"mask_rcnn": ("ce", "rs"), "yolact": ("ce", "focal", "rs"), "solov2": ("focal", "rs")}
CASES = [
    (detector, loss)
    for detector in DETECTORS
    for loss in OF_MASKS.get(
        detector, RCNN_LOSSES if detector == "faster_rcnn" else ONE_STAGE_LOSSES
    )
    if (detector, loss) != ("co_deformable_detr", "alrp")
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=8, val=3, size=(48, 64))
    return folder


def test_data_is_a_folder_or_four_paths(shapes):
    data = Data.parse(str(shapes))
    assert data.overrides == [
        f"data.train={shapes}/annotations/instances_train.json",
        f"data.train_images={shapes}/train",
        f"data.val={shapes}/annotations/instances_val.json",
        f"data.val_images={shapes}/val",
    ]
    assert Data.parse(",".join(map(str, data[:4]))) == data
    for text in ("a.json,b", str(shapes / "train")):
        with pytest.raises(InputError, match="expected"):
            Data.parse(text)


def test_first_images(shapes, tmp_path):
    whole = Data.parse(str(shapes))
    cut = whole.first(2, tmp_path)
    assert (cut.train_images, cut.val_images) == (whole.train_images, whole.val_images)
    summary = cut.check_train()
    assert summary.images == 2
    content = json.loads(whole.train.read_text())
    assert summary.annotations == sum(a["image_id"] in (1, 2) for a in content["annotations"])


@pytest.mark.parametrize(("detector", "loss"), CASES)
def test_every_detector_can_be_built_with_its_losses(detector, loss):
    cfg = with_loss(slim_recipe(detector), loss, train_images=40)
    model = instantiate(cfg.model)
    if loss == "alrp":
        head = model.roi_heads.box_predictor if "rcnn" in detector else model
        assert head.criterion.balancer.pools_per_epoch == 10  # pools of 4 images
    other = with_loss(slim_recipe(detector), "brs", train_images=40)
    hard_targets = {
        "ce",
        "wce",
        "focal",
        "wfocal",
        "corr",
        "dr",
    }  # a branch predicts quality, or units differ
    by_design = {
        "faster_rcnn": {"ce"},
        "mask_rcnn": {"ce"},
        "yolact": {"ce", "focal"},  # a background class, scores at the start
        "solov2": set(),
        "atss": hard_targets,
        "paa": hard_targets,
        "retinanet": hard_targets,
        "fovea": {"dr"},  # starts with other scores
        "co_deformable_detr": {*ONE_STAGE_LOSSES} - {"ap", "bap", "rs", "brs"},  # samples
    }
    assert bool(differences({"a": cfg, "b": other})) == (loss in by_design[detector])


def test_unknown_losses_and_layouts_are_refused():
    with pytest.raises(InputError, match="cannot be trained with 'focal'"):
        with_loss(slim_recipe("faster_rcnn"), "focal", 1)
    with pytest.raises(InputError, match="laid out for cross-entropy"):
        with_loss(CONFIGS / "quick/faster_rcnn_R_18_FPN_ce_300it.py", "brs", 1)


@pytest.mark.parametrize(
    ("config", "loss", "baseline", "published"),
    [
        ("quick/faster_rcnn_R_18_FPN_{}_300it.py", "brs", "ce", set()),
        ("coco/mask_rcnn_R_50_FPN_{}_1x.py", "rs", "ce", {"optimizer.lr"}),
        ("coco/cascade_rcnn_R_50_FPN_{}_1x.py", "brs", "ce", {"optimizer.lr"}),
        (
            "coco/retinanet_R_50_FPN_{}_1x.py",
            "rs",
            "focal",
            {"optimizer.lr", "model.postprocessor.select._target_", "model.head.has_quality"},
        ),
    ],
)
def test_the_baselines_are_those_of_the_configs(config, loss, baseline, published, tmp_path):
    """But for what the comparison keeps alike."""
    file = tmp_path / "a.yaml"
    LazyConfig.save(with_loss(CONFIGS / config.format(loss), baseline, 1), str(file))
    found = LazyConfig.load(str(file))
    LazyConfig.save(LazyConfig.load(str(CONFIGS / config.format(baseline))), str(file))
    expected = LazyConfig.load(str(file))
    assert criteria_of(found) == criteria_of(expected)
    different = {
        key for key in differences({"a": found, "b": expected}) if ".train.generator" not in key
    }
    assert different == published


def test_runs_of_a_seed_start_with_the_same_weights_and_data(shapes):
    data = Data.parse(str(shapes))
    starts = []
    for loss in ("ce", "rs"):  # with a quality branch and without
        cfg = with_loss(slim_recipe("atss"), loss, 8)
        cfg.train.seed = 5
        seed_all_rng(5)
        model = instantiate(cfg.model)
        images = first_images(cfg, data)
        starts.append((model.state_dict(), images))
    (first, images), (second, same_images) = starts
    assert first.keys() - second.keys() == {"head.quality.weight", "head.quality.bias"}
    assert all(torch.equal(value, first[name]) for name, value in second.items())
    assert [name for name, _ in images] == [name for name, _ in same_images]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(images, same_images, strict=True))


def first_images(cfg, data):
    """Names and pixels of the first batches: which images, and whether they are flipped."""
    cfg.dataloader.train.dataset = L(load_coco_dataset)(
        names="compared", json_file=str(data.train), image_root=str(data.train_images)
    )
    batches = iter(instantiate(cfg.dataloader.train))
    records = [record for _ in range(3) for record in next(batches)]
    return [(record["file_name"], record["image"]) for record in records]


def test_learning_rates():
    assert learning_rates(None, ["ce", "rs"]) == {}
    assert learning_rates("0.5", ["ce", "rs"]) == {"ce": 0.5, "rs": 0.5}
    assert learning_rates("rs=2e-3,0.5", ["ce", "rs"]) == {"ce": 0.5, "rs": 0.002}
    for bad in ("x", "0", "rs=-1", "brs=0.1", "rs=nan", "inf", "0.1,0.2", "rs=1,rs=2"):
        with pytest.raises(InputError, match="--lr"):
            learning_rates(bad, ["ce", "rs"])


def test_notes_tell_learning_rates_and_branches():
    configs = {loss: with_loss(slim_recipe("atss"), loss, 8) for loss in ("ce", "rs")}
    found = notes(configs)
    assert "0.001 for every loss" in found[0] and "`--lr LOSS=RATE`" in found[0]
    (branch,) = (note for note in found if note.startswith("`model.head.has_quality`"))
    assert branch.endswith(": True for ce; False for rs")
    configs["rs"].optimizer.lr = 0.01
    assert notes(configs)[0] == "learning rates: 0.001 for ce; 0.01 for rs"


def study(values: dict[str, dict[int, float]], planned: int = 3) -> Study:
    outcomes = {
        Run(loss, seed, Path("c"), Path("o"), ()): Outcome({"AP": ap, "AP50": 2 * ap}, 10.0)
        for loss, own in values.items()
        for seed, ap in own.items()
    }
    return Study("A title", list(values), outcomes, {}, planned, [], [])


def test_mean_and_spread():
    assert mean_and_spread([]) is None
    assert mean_and_spread([3.0]) == (3.0, None)
    mean, spread = mean_and_spread([1.0, 2.0, 6.0])
    assert mean == 3.0 and spread == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2


def test_differences_are_paired():
    """Of the seeds that both losses have: 2 and 4, whose spread is sqrt(2)."""
    found = study({"ce": {1: 10.0, 2: 20.0, 3: 30.0}, "rs": {1: 12.0, 2: 24.0}, "brs": {}})
    assert found.differences("rs") == {1: 2.0, 2: 4.0}
    header, _, ce, rs, brs = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in summary_table(found).splitlines()
    )
    assert header == ["loss", "seeds", "AP", "AP50", "AP − ce, paired", "train seconds"]
    assert ce == ["ce", "3", "20.0 ± 10.0", "40.0 ± 20.0", "", "10 ± 0"]
    assert rs == ["rs", "2 of 3", "18.0 ± 8.5", "36.0 ± 17.0", "+3.0 ± 1.4", "10 ± 0"]
    assert brs == ["brs", "0 of 3", "–", "–", "–", "–"]


def test_csv_has_every_run(tmp_path):
    write_csv(study({"ce": {1: 10.0, 2: 20.0}, "rs": {2: 30.0}}), tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["loss"], row["seed"]) for row in rows] == [
        *(("ce", seed) for seed in ("1", "2", "mean", "standard deviation")),
        *(("rs", seed) for seed in ("2", "mean", "standard deviation")),
    ]
    assert [float(row["AP"]) for row in rows[:3]] == [10, 20, 15]
    assert float(rows[3]["AP"]) == pytest.approx(50**0.5, abs=1e-4)
    assert float(rows[4]["AP minus ce"]) == 10 and rows[6]["AP"] == ""


def test_outcome_of_a_run(tmp_path):
    lines = [
        {"iteration": 19, "time": 0.5, "total_loss": 1.0},
        {"iteration": 19, "bbox/AP": float("nan"), "bbox/AP50": float("nan"), "bbox/APs": 1.0},
        {"iteration": 39, "time": 1.5},
        {"iteration": 40, "bbox/AP": 7.0, "bbox/AP50": 20.0, "bbox/AP-cat": 3.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    found = outcome(Run("ce", 1, tmp_path, tmp_path, ()))
    assert found.metrics == {"AP": 7.0, "AP50": 20.0}
    assert found.curve == {20: 0.0, 40: 7.0}  # nothing found is 0, not missing
    assert found.seconds == 40.0


def test_losses_of_a_detector_with_masks_are_compared_by_masks(tmp_path):
    line = {"iteration": 39, "bbox/AP": 70.0, "bbox/AP50": 90.0, "segm/AP-cat": 3.0}
    lines = [{**line, "iteration": 19, "segm/AP": float("nan")}, {**line, "segm/AP": 8.0}]
    runs = []
    for loss, gain in (("ce", 0.0), ("rs", 2.0)):
        run = Run(loss, 1, tmp_path, tmp_path / loss, ())
        run.output.mkdir()
        text = [json.dumps({**x, "segm/AP": x["segm/AP"] + gain}) for x in lines]
        (run.output / "metrics.json").write_text("\n".join(text))
        runs.append(run)
    outcomes = {run: outcome(run) for run in runs}
    assert outcomes[runs[0]].metrics == {"AP": 70.0, "AP50": 90.0, "mask AP": 8.0}
    assert outcomes[runs[1]].curve == {20: 0.0, 39: 10.0}
    found = Study("A title", ["ce", "rs"], outcomes, {}, 1, [], [])
    assert found.differences("rs") == {1: 2.0}
    assert "| mask AP − ce, paired " in summary_table(found)


def test_labels_keep_their_distance_and_order():
    assert spread_labels({"a": 1.0, "b": 9.0}, 2.0) == {"a": 1.0, "b": 9.0}
    found = spread_labels({"a": 5.0, "b": 5.0, "c": 4.9}, 1.0)
    assert [round(found[x], 3) for x in "cab"] == [3.967, 4.967, 5.967]


def test_a_failed_run_says_why(tmp_path):
    run = Run("ce", 1, tmp_path / "no.py", tmp_path / "run", ("--config-file", "no.py"))
    ((ended, failure, seconds),) = execute([run], jobs=1)
    assert ended is run and seconds > 0
    assert "exit status 1: error: Config file missing: no.py" in failure
    assert not run.has_ended()


def test_from_end_to_end(shapes, tmp_path, capsys):
    output = tmp_path / "compared"
    command = ["--data", str(shapes), "--losses", "ce,brs", "--seeds", "1", "--iterations", "5"]
    command += ["--evaluations", "2", "--output", str(output), "train.log_period=1"]
    assert main(command) == 0
    text = (output / "table.md").read_text()
    for expected in ("| brs ", "AP − ce, paired", "5 iterations of 4 images", "has_quality"):
        assert expected in text
    assert (output / "plot.png").stat().st_size > 10_000
    commands = (output / "commands.sh").read_text()
    assert commands.count("train_net.py") == 2 and "train.seed=1" in commands
    rows = list(csv.DictReader((output / "table.csv").open()))
    assert {row["seed"] for row in rows} >= {"1", "95 % from", "95 % to"} and len(rows) == 10
    assert float(rows[0]["train seconds"]) > 0
    assert "2 runs, 0 of them finished" in capsys.readouterr().out
    assert main(command) == 0
    assert "2 runs, 2 of them finished" in capsys.readouterr().out
    assert list(csv.DictReader((output / "table.csv").open())) == rows
    command[command.index("5")] = "6"
    assert main(command) == 1
    assert "a finished run with other settings" in capsys.readouterr().err


def test_mistakes_of_the_user(shapes, tmp_path, capsys):
    output = ["--output", str(tmp_path / "x")]
    for arguments, message in (
        (["--data", str(tmp_path)], "expected a folder"),
        (["--data", str(shapes), "--losses", "ce,ce"], "expected different names"),
        (["--data", str(shapes), "--losses", "huber"], "cannot be trained with 'huber'"),
        (["--data", str(shapes), "train.seed=3"], "every run has its own"),
        (["--data", str(shapes), "data.train=a.json"], "every run has its own"),
        (["--data", str(shapes), "data.short_side=0"], "data.short_side is '0'"),
        (["--data", str(shapes), "model.nms=1"], "There is no key model.nms"),
        (
            ["--data", str(shapes), "--losses", "ce", "model.criterion.images_per_pool=2"],
            "error: ce: There is no key model.criterion.images_per_pool",
        ),
    ):
        assert main([*arguments, *output]) == 1
        assert message in capsys.readouterr().err
