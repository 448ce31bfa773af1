import os
from dataclasses import replace
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import COCOEvaluator
from omegaconf import OmegaConf

from brloss_d2.data import CustomData, apply_custom_data
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


@pytest.fixture
def cfg():
    heads = {"num_classes": 80, "box": {"num_classes": "${..num_classes}"}}
    dataset = {"names": "coco"}
    evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    return OmegaConf.create(
        {
            "model": {"heads": heads, "stages": [{"num_classes": 80}, 3]},
            "dataloader": {
                "train": {"dataset": dataset},
                "test": {"dataset": dataset},
                "evaluator": evaluator,
            },
        },
        flags={"allow_objects": True},
    )


def custom_data(tmp_path, train=None, val=None) -> CustomData:
    return CustomData(
        train=files.write(tmp_path / "train", train or files.content(images=5)),
        val=files.write(tmp_path / "val", val or files.content(images=3)),
    )


def refused(cfg, data: CustomData) -> str:
    before = OmegaConf.to_yaml(cfg)
    with pytest.raises(InputError) as error:
        apply_custom_data(cfg, data)
    assert OmegaConf.to_yaml(cfg) == before  # nothing half-done
    return str(error.value)


def test_overrides_are_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    overrides = ["data.train=a b=c.json", "train.max_iter=3", "data.val_images=~/images"]
    data, others = CustomData.from_overrides(overrides)
    expected = CustomData(train=str(tmp_path / "a b=c.json"), val_images="/home/me/images")
    assert data == expected
    assert others == ["train.max_iter=3"]
    assert data
    assert not CustomData.from_overrides(others)[0]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.trian=x"], r"no key data\.trian\. Did you mean data\.train\? Known keys: data\.t"),
        (["data.zzzz=x"], r"no key data\.zzzz\. Known keys"),
        (["data.val=https://host/a.json"], r"expected a path; download the file first"),
        (["data.val="], r"data\.val has no value"),
        (["data.val"], r"data\.val has no value"),
        (["data.val=a", "data.val=b"], r"data\.val is given twice"),
    ],
)
def test_bad_keys(overrides, expected):
    with pytest.raises(InputError, match=expected):
        CustomData.from_overrides(overrides)


def test_config_uses_the_data(tmp_path, cfg):
    cfg.model.unset = "???"
    summary = apply_custom_data(cfg, custom_data(tmp_path))
    assert summary.num_classes == 2
    assert cfg.model.heads.num_classes == 2
    assert cfg.model.stages[0].num_classes == 2
    assert cfg.dataloader.test.dataset.names == "custom_val"
    # Still an interpolation, so that a later override of the one number reaches it.
    assert OmegaConf.is_interpolation(cfg.model.heads.box, "num_classes")
    assert instantiate(cfg.dataloader.evaluator)._metadata.name == "custom_val"


def test_saved_config_loads_the_data_again(tmp_path, cfg):
    apply_custom_data(cfg, custom_data(tmp_path))
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    saved = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert len(instantiate(saved.dataloader.train.dataset)) == 5
    assert len(instantiate(saved.dataloader.test.dataset)) == 3


def test_image_folders_can_be_elsewhere(tmp_path, cfg):
    data = custom_data(tmp_path)
    (tmp_path / "val" / "instances.json").rename(tmp_path / "val.json")
    data = CustomData(data.train, None, str(tmp_path / "val.json"), str(tmp_path / "val"))
    apply_custom_data(cfg, data)
    assert cfg.dataloader.test.dataset.image_root == str(tmp_path / "val")


def test_table_of_counts(tmp_path, cfg, caplog):
    val = files.content()
    val["annotations"].append(files.annotation(0, 1, box=[1, 1, 0, 0]))
    text = str(apply_custom_data(cfg, custom_data(tmp_path, val=val)))
    rows = {line.rsplit(maxsplit=2)[0]: line.split()[-2:] for line in text.split("\n") if line}
    assert rows["boxes of bolt (id 2)"] == ["2", "1"]
    assert rows["boxes without area, dropped"] == ["0", "1"]
    assert rows["images without objects"] == ["1", "1"]
    assert "Note: 1 box without area: nothing can match" in text
    assert len(instantiate(cfg.dataloader.test.dataset)) == 3
    assert not caplog.messages, "what is dropped is in the table"


def test_classes_without_training_boxes(tmp_path, cfg):
    train, val = files.content(images=4), files.content(images=4)
    for record in train["annotations"]:
        record["category_id"] = 2
    train["categories"].append({"id": 9, "name": "x"})
    val["categories"].append({"id": 9, "name": "x"})
    text = str(apply_custom_data(cfg, custom_data(tmp_path, train=train, val=val)))
    assert "Note: data.train: no boxes of nut, which data.val has.\n" in text
    assert "Note: data.train: no boxes of x." in text


def test_the_table_on_a_terminal(tmp_path, cfg):
    """Narrow whatever the names, short whatever the number of classes."""
    train, val = files.content(), files.content()
    for content in (train, val):
        more = [{"id": i, "name": f"\x1b[31mclass {'x' * 99} {i}"} for i in range(1000, 2000)]
        content["categories"] += more
    summary = apply_custom_data(cfg, custom_data(tmp_path, train=train, val=val))
    lines = summary.table(most_classes=4).split("\n")
    assert len(lines) < 12 and max(map(len, lines)) <= 80
    assert "... 998 more classes in log.txt" in [line.strip() for line in lines]
    assert "dropped" not in "".join(lines), "no rows of zeros"
    assert len(str(summary).split("\n")) > 1000 and "\x1b" not in str(summary)


def test_validation_data_alone_serve_evaluation(tmp_path, cfg):
    summary = apply_custom_data(cfg, CustomData(val=custom_data(tmp_path).val))
    assert "evaluation only" in str(summary)
    assert len(instantiate(cfg.dataloader.test.dataset)) == 3
    with pytest.raises(InputError, match=r"data\.train is not given: training needs"):
        instantiate(cfg.dataloader.train.dataset)


def test_training_data_alone_serve_training(tmp_path, cfg):
    summary = apply_custom_data(cfg, CustomData(train=custom_data(tmp_path).train))
    assert "no evaluation" in str(summary) and summary.num_classes == 2
    assert cfg.dataloader.evaluator is None
    assert len(instantiate(cfg.dataloader.train.dataset)) == 5
    with pytest.raises(InputError, match=r"data\.val is not given: evaluation needs"):
        instantiate(cfg.dataloader.test.dataset)


def test_a_fraction_is_set_aside_by_file(tmp_path, cfg):
    content = files.content(images=10)
    content["images"].append({**content["images"][0], "id": 11})  # a file listed twice
    cfg.train = {"output_dir": str(tmp_path / "run")}
    data = CustomData(train=files.write(tmp_path / "all", content), val_fraction=0.3)
    parts = []
    for _ in range(2):  # the same each time
        summary = apply_custom_data(cfg, data)
        summary.write_split()
        parts.append([instantiate(cfg.dataloader[x].dataset) for x in ("train", "test")])
        content["images"].reverse()
        for record in content["annotations"]:  # another spelling of the same
            record["image_id"] = float(record["image_id"])
        files.write(tmp_path / "all", content)
    names = [[{r["file_name"] for r in records} for records in both] for both in parts]
    assert names[0] == names[1]
    train, val = names[0]
    assert (len(train), len(val)) == (7, 3) and not train & val
    assert sum(map(len, parts[0])) == 11
    assert summary.train.boxes + summary.val.boxes == 9
    (split,) = {Path(summary.train.json_file).parent, Path(summary.val.json_file).parent}
    assert split == tmp_path / "run" / "split" and len(list(split.iterdir())) == 4
    assert summary.val.json_file in str(summary)
    with_others = apply_custom_data(cfg, replace(data, val_fraction=0.5))
    assert "leaves one image" not in str(with_others)
    assert "leaves one image" in str(apply_custom_data(cfg, replace(data, val_fraction=0.01)))
    assert not any(map(os.path.exists, with_others.to_write)), "files of a run are not overwritten"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.val_fraction=0.2"], "splits data.train"),
        (["data.train=a", "data.val=b", "data.val_fraction=0.2"], "no data.val"),
        (["data.train=a", "data.val_fraction=1"], "between 0 and 1"),
        (["data.train=a", "data.val_fraction=fifth"], "between 0 and 1"),
    ],
)
def test_bad_fractions(overrides, expected):
    with pytest.raises(InputError, match=expected):
        CustomData.from_overrides(overrides)


def test_one_image_cannot_be_split(tmp_path, cfg):
    content = files.content(images=2)
    content["images"].pop()
    cfg.train = {"output_dir": str(tmp_path / "run")}
    data = CustomData(train=files.write(tmp_path / "all", content), val_fraction=0.5)
    assert "one image cannot be split" in refused(cfg, data)
    assert not (tmp_path / "run").exists()


def test_incomplete_keys(tmp_path, cfg):
    data = custom_data(tmp_path)
    text = refused(cfg, CustomData(val=data.val, train_images=str(tmp_path)))
    assert text == "data.train_images is given without data.train=FILE.json."


def test_category_differences_are_listed(tmp_path, cfg):
    val = files.content()
    val["categories"][0]["name"] = "nuts"
    val["categories"].append({"id": 9, "name": "screw"})
    text = refused(cfg, custom_data(tmp_path, val=val))
    assert "only in data.train: 7 'nut'\n" in text
    assert text.endswith("only in data.val: 7 'nuts', 9 'screw'")


def test_order_of_categories_does_not_matter(tmp_path, cfg):
    val = files.content()
    val["categories"].reverse()
    apply_custom_data(cfg, custom_data(tmp_path, val=val))


def test_what_evaluation_or_training_would_stumble_over(tmp_path, cfg):
    data = files.content()
    for record, box in zip(data["annotations"], ([1, 1, 0, 0], [1, 90, 5, 5]), strict=True):
        record["bbox"] = box
    data["annotations"].append(files.annotation(9, 1, iscrowd=1))
    text = refused(cfg, custom_data(tmp_path, train=data))
    assert "no boxes to learn from (only 1 without area, 1 outside of the image, 1 of c" in text
    data["annotations"].append(files.annotation(10, 2))
    text = refused(cfg, custom_data(tmp_path, train=data))
    assert "most boxes have nothing to learn from (1 without area, 1 outside of the image" in text
    data["annotations"] = []
    assert refused(cfg, custom_data(tmp_path, val=data)).endswith("it has no boxes to find.")


def test_a_model_without_classes_is_refused(tmp_path, cfg):
    cfg.model = {"width": 3}
    assert "no num_classes below `model`" in refused(cfg, custom_data(tmp_path))


def test_the_key_is_named(tmp_path, cfg):
    data = custom_data(tmp_path, train={**files.content(), "categories": []})
    assert refused(cfg, data).startswith(f"data.train={data.train}: it lists no categories")


@pytest.mark.parametrize("mask", ["polygon", "rle"])
def test_masks_that_polygons_cannot_hold_are_bitmaps(cfg, tmp_path, mask):
    cfg.dataloader.train.mapper = {"use_instance_mask": True, "instance_mask_format": "polygon"}
    data = files.content(images=5)
    for record in data["annotations"]:
        record["segmentation"] = [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0]]
    if mask == "rle":
        pixels = files.HEIGHT * files.WIDTH
        size = [files.HEIGHT, files.WIDTH]
        data["annotations"][2]["segmentation"] = {"size": size, "counts": [0, 9, pixels - 9]}
    apply_custom_data(cfg, custom_data(tmp_path, train=data, val=data))
    expected = "bitmask" if mask == "rle" else "polygon"
    assert cfg.dataloader.train.mapper.instance_mask_format == expected


def test_a_config_that_learns_masks_needs_them(cfg, tmp_path):
    cfg.dataloader.train.mapper = {"use_instance_mask": True}
    data = files.content(images=5)
    for record in data["annotations"]:
        record["segmentation"] = [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0]]
    good = custom_data(tmp_path / "good", train=data, val=data)
    data["annotations"][1]["segmentation"] = []  # as tools for boxes write it
    text = refused(cfg, custom_data(tmp_path / "bad", train=data))
    assert "data.train=" in text and "1 of 4 boxes have no 'segmentation'" in text
    assert "data.val=" in refused(cfg, CustomData(train=good.train, val=custom_data(tmp_path).val))
    apply_custom_data(cfg, good)


def test_a_test_set_without_annotations(cfg, tmp_path):
    data = files.content(images=3)
    del data["annotations"]
    summary = apply_custom_data(cfg, CustomData(val=files.write(tmp_path, data)))
    assert summary.val.images == 3 and not summary.val.annotated
    assert "it lists no annotations, so that nothing is evaluated" in str(summary)
    assert len(instantiate(cfg.dataloader.test.dataset)) == 3
    data["annotations"] = []
    text = refused(cfg, CustomData(val=files.write(tmp_path, data)))
    assert "no boxes to find" in text
