from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator, LVISEvaluator


def refusal(path: Path | str, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        load_config(str(path), overrides)
    return str(error.value)


def test_overrides_change_values_of_any_kind(config: Path) -> None:
    cfg, custom_data = load_config(
        str(config),
        [
            "optimizer.lr=3e-4",
            "train.amp={enabled: true}",
            "train.init_checkpoint=torchvision://resnet50",
            'train.output_dir="/tmp/a (b)=c"',
            "dataloader.evaluator=null",
        ],
    )
    assert custom_data is None
    assert cfg.optimizer.lr == 3e-4
    assert cfg.train.amp.enabled is True and cfg.train.amp.dtype == "float16"
    assert cfg.train.init_checkpoint == "torchvision://resnet50"
    assert cfg.train.output_dir == "/tmp/a (b)=c"
    assert cfg.dataloader.evaluator is None


@pytest.mark.parametrize("text", ["2024_11_28", "1e5", "12", "true", "nan", "007", "2024-11-28"])
def test_text_that_looks_like_a_number_stays_text(config: Path, text: str) -> None:
    cfg, _ = load_config(str(config), [f"train.output_dir={text}", f"train.wandb={text}"])
    assert (cfg.train.output_dir, cfg.train.wandb) == (text, text)


def test_an_argument_of_the_target_is_a_key(config: Path) -> None:
    cfg, _ = load_config(str(config), ["optimizer.nesterov=True", "model.nan_rank=1"])
    assert cfg.optimizer.nesterov is True
    assert instantiate(cfg.model).nan_rank == 1


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.max_itr=3", ["train.max_itr", "train.max_iter"]),
        ("max_iter=3", ["train.max_iter"]),
        ("optimizer.lrr=3", ["optimizer.lrr", "optimizer.lr"]),
        ("optimizer.nestrov=True", ["optimizer.nesterov"]),
        ("model.linear.weight=3", ["model.linear.weight"]),
        ("model.num_classes.x=3", ["model.num_classes.x"]),
        ("+train.extra=3", ["train.extra"]),
        ("+extra={a: 1}", ["extra"]),
        ("train.max_iter", ["train.max_iter", "key=value"]),
        ("=3", ["key=value"]),
        ("~train.max_iter", ["key=value"]),
        ("dataloader.evaluator.output_dir=a(b)", ["quotes"]),
        ("train.max_iter=1,2", ["train.max_iter=[...]"]),
        ("train.max_iter=abc", ["train.max_iter", "'abc'", "int"]),
        ("train.max_iter=True", ["train.max_iter", "True"]),
        ("train.max_iter=0", ["train.max_iter", "at least 1"]),
        ("train.checkpointer.period=0", ["train.checkpointer.period"]),
        ("train.amp.dtype=half", ["train.amp.dtype", "bfloat16"]),
        ("train.amp=3", ["train.amp", "enabled"]),
        ("train.seed=${train.sead}", ["sead"]),
        ("train=3", ["train"]),
        ("data.trian=a.json", ["data.trian", "data.train"]),
    ],
)
def test_a_bad_override_is_refused_by_name(config: Path, override: str, parts: list[str]) -> None:
    message = refusal(config, override)
    assert all(part in message for part in parts), message


def test_plus_adds_a_key(config: Path) -> None:
    assert "+model.extra" in refusal(config, "model.extra=3")
    cfg, _ = load_config(str(config), ["+model.extra=3", "model.extra=4"])
    assert cfg.model.extra == 4
    assert "num_classes" in refusal(config, "+model.num_classes.x=3")


def test_keys_below_a_list(config: Path) -> None:
    config.write_text(config.read_text() + "model.heads = [dict(size=1), dict(size=2)]\n")
    cfg, _ = load_config(str(config), ["model.heads.1.size=5"])
    assert cfg.model.heads[1].size == 5
    assert "model.heads.2.size" in refusal(config, "model.heads.2.size=5")


def test_a_key_below_an_interpolation_names_its_source(config: Path) -> None:
    # OmegaConf would silently replace the whole node by {"size": 5}.
    config.write_text(
        config.read_text() + 'model.head = dict(size=1)\nmodel.second = "${model.head}"\n'
    )
    message = refusal(config, "model.second.size=5")
    assert "model.second" in message and "${model.head}" in message


def test_missing_or_unreadable_config_file(tmp_path: Path) -> None:
    assert "--config-file" in refusal("")
    assert "no_such.py" in refusal(tmp_path / "no_such.py")
    (tmp_path / "a.txt").write_text("")
    assert ".yaml" in refusal(tmp_path / "a.txt")
    (tmp_path / "a.yaml").write_text("model: [1")
    assert "valid YAML" in refusal(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    assert "lr_multiplier" in refusal(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("extra = dict(a=1)", ["extra", "underscore"]),
        ("del lr_multiplier", ["lr_multiplier is missing"]),
        ("train['max_itr'] = 3", ["train.max_itr", "train.max_iter"]),
        ("train['ddp']['static'] = 3", ["train.ddp.static"]),
    ],
)
def test_keys_of_the_file_itself(config: Path, line: str, parts: list[str]) -> None:
    config.write_text(f"{config.read_text()}{line}\n")
    message = refusal(config)
    assert all(part in message for part in parts), message


def test_absent_train_keys_get_their_defaults(config: Path) -> None:
    config.write_text(config.read_text() + "train = dict(max_iter=7)\n")
    cfg, _ = load_config(str(config))
    assert (cfg.train.max_iter, cfg.train.log_period) == (7, 20)
    assert cfg.dataloader.evaluator.output_dir == "./output/inference"


def test_custom_data_survives_a_dump_and_can_be_given_again(config: Path, coco: list[str]) -> None:
    cfg, summary = load_config(str(config), [*coco, "model.nan_rank=1", "train.seed=5"])
    assert summary.num_classes == 2
    assert cfg.model.num_classes == 2
    dumped = config.parent / "dumped.yaml"
    LazyConfig.save(cfg, str(dumped))

    again, none = load_config(str(dumped))
    assert none is None
    assert OmegaConf.to_yaml(again.train) == OmegaConf.to_yaml(cfg.train)
    assert again.model.num_classes == 2 and again.model.nan_rank == 1
    assert again.dataloader.evaluator.output_dir == f"{cfg.train.output_dir}/inference"
    assert len(instantiate(again.dataloader.train.dataset)) == 1

    cfg, summary = load_config(str(dumped), [*coco, "dataloader.train.num_workers=1"])
    assert summary.num_classes == 2 and cfg.dataloader.train.num_workers == 1


def test_overrides_come_after_custom_data(config: Path, coco: list[str]) -> None:
    cfg, _ = load_config(str(config), ["dataloader.test.dataset.names=mine", *coco])
    assert cfg.dataloader.test.dataset.names == "mine"


@pytest.mark.parametrize("number", [1, 9])
def test_another_number_of_classes_than_that_of_the_data_is_refused(
    config: Path, coco: list[str], number: int
) -> None:
    message = refusal(config, f"model.num_classes={number}", *coco)
    assert f"num_classes={number}" in message and "2 classes" in message


@pytest.mark.parametrize("dataset", ["lvis_v1", "cityscapes"])
def test_custom_data_is_evaluated_in_coco_style(
    config: Path, coco: list[str], dataset: str
) -> None:
    """The evaluators of these configs read other formats, and would fail after hours."""
    file = Path(__file__).parents[2] / "configs" / "common" / "data" / f"{dataset}.py"
    node = f"LazyConfig.load({str(file)!r}).dataloader"
    boxes = 'dataloader["train"]["mapper"]["use_instance_mask"] = False'
    text = f"from detectron2.config import LazyConfig\ndataloader = {node}\n{boxes}\n"
    config.write_text(config.read_text() + text)
    cfg, _ = load_config(str(config), coco)
    evaluator = instantiate(cfg.dataloader.evaluator)
    assert isinstance(evaluator, COCOEvaluator)
    assert evaluator._metadata.name == "custom_val"
    cfg, _ = load_config(str(config))
    assert cfg.dataloader.evaluator._target_ in (LVISEvaluator, CityscapesEvaluator)
    message = refusal(config, *coco, "dataloader.train.mapper.use_instance_mask=True")
    assert "'segmentation'" in message, "masks are wanted by an override"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("x = = 3", ["line {}", "SyntaxError"]),
        ("no_such_name.x = 3", ["line {}", "NameError", "no_such_name"]),
        ("import no_such_module", ["line {}", "no_such_module"]),
        ("from .missing import model", ["line {}", "missing.py does not exist"]),
        ("model.heads.size = 3", ["line {}", "heads"]),
    ],
)
def test_a_mistake_in_a_config_file_names_its_line(
    config: Path, line: str, parts: list[str]
) -> None:
    config.write_text(f"{config.read_text()}\n{line}\n")
    number = len(config.read_text().splitlines())
    message = refusal(config)
    assert all(part.format(number) in message for part in parts), message
    assert "\n" not in message
