"""Equal budgets of tuning per loss: learning rates, the split to test on, several comparisons."""

import argparse
import csv
import json
from pathlib import Path

import pytest

import compare_losses
from brloss_d2.data import read_coco, write_shapes
from brloss_d2.errors import InputError
from compare_losses import main
from comparison import runs
from comparison.cases import cases, settings
from comparison.data import Data
from comparison.recipe import slim_recipe
from comparison.report import Study, rates_table, summary_table
from comparison.runs import Outcome, Run, execute, read_metrics
from comparison.tested import metrics_of_test
from comparison.tuning import Tuning, rate_factors


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=4, val=6, size=(48, 64))
    return folder


def test_factors_of_the_learning_rate():
    assert rate_factors(1, None) == [1]
    assert rate_factors(3, None) == [0.5, 1, 2]
    assert rate_factors(5, None) == [0.25, 0.5, 1, 2, 4]
    assert rate_factors(3, "4,0.25") == [0.25, 4]
    for grid, text in (
        (2, None),
        (1, ""),
        (1, "0,1"),
        (1, "1,x"),
        (1, "1,1.0"),
        (1, "nan"),
        (1, "1,nan,2"),
        (1, "inf"),
        (1, "2"),
    ):
        with pytest.raises(InputError, match="--lr-"):
            rate_factors(grid, text)


def tuning(values: dict[float, list[float | None]], metric: str = "AP") -> Tuning:
    """Trials of the loss `rs` by learning rate, one for each seed; None if it has diverged."""
    outcomes = {
        Run("rs", seed, Path("c"), Path("o"), (), rate): None
        if x is None
        else Outcome({metric: x}, 1)
        for rate, own in values.items()
        for seed, x in enumerate(own, start=1)
    }
    return Tuning(metric, [0.5, 1, 2], {"rs": [0.1, 0.2, 0.4]}, outcomes)


def test_the_rate_with_the_best_mean_is_chosen():
    found = tuning({0.1: [10, 20], 0.2: [14, 18], 0.4: [29, 1]})
    assert found.means("rs") == {0.1: 15, 0.2: 16, 0.4: 15}
    assert found.best("rs") == 0.2 and not found.is_at_edge("rs")
    assert found.spread("rs") == 1
    errors = tuning({0.1: [90], 0.2: [80], 0.4: [70]}, "oLRP")
    assert errors.best("rs") == 0.4 and errors.is_at_edge("rs")


def test_a_training_that_diverges_has_found_nothing():
    found = tuning({0.1: [10, 20], 0.2: [40, None], 0.4: [None, None]})
    assert found.means("rs") == {0.1: 15, 0.2: 20, 0.4: 0}
    header, _, row = rates_table(found).splitlines()
    assert "| AP, validation " in header and "| rate × 0.5 " in header
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == [
        *("rs", "15.0 ± 7.1", "**20.0 ± 28.3 (1 diverged)**"),
        *("0.0 ± 0.0 (2 diverged)", "20.0"),
    ]
    assert tuning({0.1: [90], 0.2: [None]}, "oLRP").best("rs") == 0.1


def test_tables_name_the_rate_and_whether_it_is_at_the_edge():
    study = Study("T", ["rs"], {}, {}, 2, [], [], "AP", tuning({0.1: [10], 0.2: [9], 0.4: [8]}))
    assert "| 0.1 † " in summary_table(study)
    none = Study("T", ["rs"], {}, {}, 2, [], [], "AP", tuning({}))
    assert summary_table(none).splitlines()[-1].split("|")[2].strip() == "–"
    assert "| – " in rates_table(none.tuning)


def names(file: Path) -> set[str]:
    return {image["file_name"] for image in read_coco(str(file)).images}


def test_a_part_of_the_validation_images_is_set_aside_to_test_on(shapes, tmp_path):
    data = Data.parse(str(shapes))
    split = data.with_test(1 / 3, tmp_path)
    assert split == data.with_test(1 / 3, tmp_path)
    assert len(names(split.val)) == 4 and len(names(split.test)) == 2
    assert names(split.val) | names(split.test) == names(data.val)
    assert split.overrides[2] == f"data.val={split.val}"
    assert split.test_overrides == [f"data.val={split.test}", f"data.val_images={data.val_images}"]
    with pytest.raises(InputError, match="cannot be split"):
        data.first(1, tmp_path).with_test(0.5, tmp_path)


def test_a_folder_may_have_images_to_test_on(shapes, tmp_path):
    own = Data.parse(str(shapes)).with_test(0.5, tmp_path / "parts")
    folder = tmp_path / "annotations"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"instances_{split}.json").write_text(getattr(own, split).read_text())
    found = Data.parse(str(tmp_path))
    assert found.test == folder / "instances_test.json" and found.test_images == tmp_path / "test"
    assert Data.parse(",".join(map(str, own))) == own
    assert own.with_test(0.5, tmp_path) is own


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_to_test_on_must_be_new(shapes, split):
    data = Data.parse(str(shapes))
    same = data._replace(
        test=getattr(data, split), test_images=shapes / "annotations" / ".." / split
    )
    with pytest.raises(InputError, match=f"are in .*instances_{split}.json too"):
        same.with_test(0.5, shapes)


def test_images_to_validate_on_must_be_new(shapes):
    data = Data.parse(str(shapes))
    with pytest.raises(InputError, match=r"4 images are in .*instances_train.json too"):
        data._replace(val=data.train, val_images=data.train_images).with_test(0.5, shapes)


def arguments(**changes) -> argparse.Namespace:
    defaults = {"data": ["a/shapes"], "detector": None, "config_file": None, "vary": []}
    return argparse.Namespace(**defaults | changes)


def test_one_comparison_has_no_name():
    (case,) = cases(arguments())
    assert case == ("a/shapes", slim_recipe("atss"), (), "")


def test_comparisons_are_named_by_what_differs():
    found = cases(
        arguments(
            data=["a/shapes", "b/ratio_10.json,b,c,d"],
            detector=["atss"],
            config_file=[Path("x/y.py")],
            vary=["model.criterion.images_per_pool=1,2", "model.a=[1,2]"],
        )
    )
    assert len(found) == 8
    assert [case.name for case in found][:3] == [
        "shapes-y-images_per_pool=1-a=_1,2_",
        "shapes-y-images_per_pool=2-a=_1,2_",
        "shapes-atss_R_18_FPN_brs_300it-images_per_pool=1-a=_1,2_",
    ]
    assert found[-1].varied == ("model.criterion.images_per_pool=2", "model.a=[1,2]")
    data = ["a/bccd/annotations/instances_train.json,b,c,d", "a/nuts/train.json,b,c,d"]
    assert [case.name for case in cases(arguments(data=data))] == ["bccd", "nuts"]
    with pytest.raises(InputError, match=r"would have the name shapes.* rename"):
        cases(arguments(data=["a/shapes", "b/shapes"]))
    with pytest.raises(InputError, match="asked for twice"):
        cases(arguments(data=["a/shapes", "a/shapes"]))


@pytest.mark.parametrize("text", ["key", "=1,2", "key=", "key=1,,2"])
def test_settings_need_a_key_and_values(text):
    with pytest.raises(InputError, match="expected KEY=VALUE"):
        settings(text)


def test_rare_classes_are_averaged_apart():
    line = {"bbox/AP": 5.0, "bbox/AP-a": 1.0, "bbox/AP-b": 3.0, "bbox/AP-c": 8.0}
    assert read_metrics(line, ["a", "b"]) == {"AP": 5.0, "AP rare": 2.0, "AP common": 8.0}
    nan = float("nan")  # without objects, or nothing found
    found = read_metrics({**line, "bbox/AP-b": nan, "bbox/AP-c": nan}, ["a", "b"])
    assert found == {"AP": 5.0, "AP rare": 1.0, "AP common": 0.0}


def write_detections(run: Run, results: list[dict]) -> None:
    folder = run.output / "inference"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coco_instances_results.json").write_text(json.dumps(results))


def perfect(file: Path, score: float = 0.9) -> list[dict]:
    """Detections that agree with an annotation file."""
    keys = ("image_id", "category_id", "bbox")
    return [
        {key: a[key] for key in keys} | {"score": score} for a in read_coco(str(file)).annotations
    ]


def test_metrics_of_a_test(shapes, tmp_path):
    file, run = Data.parse(str(shapes)).val, Run("rs", 1, tmp_path, tmp_path / "run", ())
    write_detections(run, perfect(file))
    found = metrics_of_test(run, str(file), 100, ["circle"])
    assert found["AP"] == found["AP rare"] == found["AP common"] == pytest.approx(100)
    write_detections(run, [x for x in perfect(file) if x["category_id"] == 1])
    found = metrics_of_test(run, str(file), 100, ["circle"])
    assert [found[name] for name in ("AP rare", "AP common")] == pytest.approx([100, 0])
    write_detections(run, [])
    assert metrics_of_test(run, str(file), 100, ["circle"]) == {
        **{"AP": 0, "AP50": 0, "AP75": 0, "oLRP": 100, "AP rare": 0, "AP common": 0}
    }


def test_a_training_that_has_diverged_is_not_repeated(tmp_path, monkeypatch):
    text = "print('error: Training has diverged at iteration 3: loss is nan'); raise SystemExit(1)"
    monkeypatch.setattr(runs, "command", lambda run, python: [python, "-c", text])
    config = tmp_path / "a.yaml"
    config.write_text("")
    run = Run("ce", 1, config, tmp_path / "run", ())
    ((_, failure, _),) = execute([run], jobs=1)
    assert "diverged at iteration 3" in failure
    assert run.is_done() and "diverged at iteration 3" in run.diverged


@pytest.fixture
def trained(monkeypatch):
    """Stands in for trainings; AP depends on the loss and on the learning rate. What has run."""
    executed: list[str] = []

    def execute(todo, jobs, prefix):
        for run in todo:
            executed.append(run.name)
            run.output.mkdir(parents=True)
            done = dict(run.settings) if run.config.exists() else {}
            if run.is_test:
                (value,) = (x for x in run.arguments if x.startswith("data.val="))
                write_detections(run, perfect(Path(value.partition("=")[2])))
            elif run.rate == 0.002:
                done["diverged"] = "Training has diverged"
            else:
                ap = 1e4 * run.rate + (run.loss == "brs") + run.seed
                lines = [
                    {"iteration": 2, "time": 0.5},
                    {"iteration": 3, "bbox/AP": ap, "bbox/AP50": ap},
                ]
                (run.output / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
                (run.output / "config.yaml").write_text("")
            run.record.write_text(json.dumps(done))
            yield run, done.get("diverged"), 1.0

    monkeypatch.setattr(compare_losses, "execute", execute)
    return executed


def test_rates_are_chosen_on_one_split_and_tested_on_another(shapes, tmp_path, trained, capsys):
    command = ["--data", str(shapes), "--losses", "ce,brs", "--seeds", "2", "--tune-seeds", "1"]
    command += [
        "--lr-grid",
        "3",
        "--metric",
        "bbox/AP",
        "--output",
        str(tmp_path),
        "--iterations",
        "3",
    ]
    assert main(command) == 0
    assert trained == [
        *(
            f"{x} seed 1, learning rate {rate}"
            for rate in (0.0005, 0.001, 0.002)
            for x in ("ce", "brs")
        ),
        *(f"{x} seed 2, learning rate 0.001" for x in ("ce", "brs")),
        *(f"{x} seed {seed}, learning rate 0.001, test" for seed in (1, 2) for x in ("ce", "brs")),
    ]
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [row["images"] for row in rows] == ["val"] * 8 + ["test"] * 4
    assert [row["diverged"] for row in rows[:6]] == ["0", "0", "0", "0", "1", "1"]
    assert {row["AP"] for row in rows[8:]} == {"100.0000"}
    assert rows[1]["factor"] == "0.5" and rows[1]["AP"] == "7.0000" and rows[1]["chosen"] == "0"
    text = (tmp_path / "table.md").read_text()
    for expected in (
        "3 to choose the learning rate on",
        "3 to test on",
        "3 trainings for the choice",
    ):
        assert expected in text
    assert (tmp_path / "commands.sh").read_text().count("--eval-only") == 4
    assert main(command) == 0 and len(trained) == 12
    assert "6 runs, 6 of them finished" in capsys.readouterr().out


def test_several_comparisons_have_one_table(shapes, tmp_path, trained):
    command = ["--data", str(shapes), "--losses", "rs", "--seeds", "1", "--lr-factors", "0.25,0.5"]
    command += ["--vary", "model.criterion.images_per_pool=1,2", "--output", str(tmp_path)]
    assert main(command) == 0
    text = (tmp_path / "table.md").read_text()
    for name in ("images_per_pool=1", "images_per_pool=2"):
        assert f"## [{name}]({name}/table.md)" in text
        assert (tmp_path / name / "table.md").is_file()
        assert f"model.criterion.{name}" in (tmp_path / name / "commands.sh").read_text()
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert len(rows) == 6 and len({row["settings"] for row in rows}) == 2


def test_a_folder_keeps_its_comparison(shapes, tmp_path, trained, capsys):
    """Its runs, configs and tables stay if another comparison is asked for there."""
    other = tmp_path / "other"
    write_shapes(other, train=4, val=6, size=(48, 64))
    rates = ["--lr-factors", "0.25,0.5", "--seeds", "1"]
    first = ["--data", str(shapes), "--losses", "rs", *rates, "--output", str(tmp_path / "x")]
    assert main(first) == 0
    files = {path: path.read_bytes() for path in (tmp_path / "x").rglob("*") if path.is_file()}
    for change in (
        ["--data", str(other), "--losses", "rs", *rates],
        ["--data", str(other), "--losses", "ce", *rates],
        ["--data", str(other), "--losses", "ce", "--seeds", "1", "--detector", "retinanet"],
        ["--data", str(shapes), "--losses", "rs", *rates, "optimizer.weight_decay=0.1"],
        ["--data", str(shapes), "--data", str(other), "--losses", "rs", *rates],
    ):
        assert main([*change, "--output", str(tmp_path / "x")]) == 1
        assert "of another comparison" in capsys.readouterr().err
    assert files == {path: path.read_bytes() for path in files}
    assert main([*first[:3], "rs,ce", *first[4:]]) == 0, "losses can be added"
    several = ["--data", str(shapes), "--data", str(other), "--losses", "rs", *rates]
    assert main([*several, "--output", str(tmp_path / "y")]) == 0
    assert main([*first[:-1], str(tmp_path / "y")]) == 1
    assert "of another comparison" in capsys.readouterr().err


def test_quick_is_a_default(shapes, tmp_path, trained):
    command = ["--data", str(shapes), "--losses", "rs", "--quick", "--lr-factors", "0.25,0.5"]
    assert main([*command, "--seeds", "2", "--output", str(tmp_path / "x")]) == 0
    assert [name for name in trained if name.endswith("test")] == [
        f"rs seed {seed}, learning rate 0.0005, test" for seed in (1, 2)
    ]


def test_rare_classes_need_objects_to_be_measured(shapes, tmp_path, capsys):
    content = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    (circle,) = (x["id"] for x in content["categories"] if x["name"] == "circle")
    content["annotations"] = [x for x in content["annotations"] if x["category_id"] != circle]
    (tmp_path / "val.json").write_text(json.dumps(content))
    train = f"{shapes}/annotations/instances_train.json,{shapes}/train"
    options = ["--data", f"{train},{tmp_path}/val.json,{shapes}/val", "--output", f"{tmp_path}/x"]
    assert main([*options, "--rare", "circle"]) == 1
    assert "val.json has objects of rectangle, triangle only" in capsys.readouterr().err
    assert main([*options, "--rare", "rectangle,triangle"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tune-seeds", "1"], "--tune-seeds: give --lr-grid or --lr-factors"),
        (["--tune-seeds", "4", "--lr-grid", "3"], "--tune-seeds=4: expected no more than --seeds"),
        (["--prefix", "tasket -c 0"], "there is no program 'tasket'"),
    ],
)
def test_options_that_have_no_effect(shapes, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["--data", str(shapes), *options])
    assert message in capsys.readouterr().err


def test_mistakes_of_the_user(shapes, tmp_path, capsys):
    output = ["--output", str(tmp_path / "x"), "--data", str(shapes)]
    for options, message in (
        (["--lr-grid", "2"], "expected 1, 3, 5"),
        (["--metric", "segm/AP"], "expected one of bbox/AP"),
        (["--rare", "hexagon"], "of the classes circle"),
        (["--rare", "circle,rectangle,triangle"], "not all"),
        (["--lr-grid", "3", "optimizer.lr=0.1"], "give --lr RATE"),
        (["--vary", "data.val=a,b"], "every run has its own"),
        (["--vary", "optimizer.weight_decay=0.1,abc"], "abc"),
    ):
        assert main([*output, *options]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
