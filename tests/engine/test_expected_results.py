"""`train.expected_results`: an evaluation out of range ends with a non-zero exit status."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L

from brloss_d2.engine import load_config
from brloss_d2.engine.prepare import _check_metrics
from brloss_d2.errors import InputError
from brloss_d2.evaluation import COCOEvaluator
from tests.helpers.programs import Programs, train_net_words

TrainNet = Callable[..., Path]
# The toy model has an AP of 100.
RIGHT, WRONG = (f"train.expected_results=[[bbox,AP,{value},0.5]]" for value in (99.5, 99.4))
TOLD = "error: bbox/AP is 100.00, expected 99.4 ± 0.5 (train.expected_results).\n"


def test_after_training_and_evaluation(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    train_net(RIGHT)
    train_net(RIGHT, eval_only=True)
    for options in ({}, {"resume": True}, {"eval_only": True}):
        with pytest.raises(SystemExit) as end:
            train_net(WRONG, **options)
        assert end.value.code == 1
        shown = capsys.readouterr()
        assert shown.err == TOLD
        assert "Done.\nResults:" in shown.out, "the run itself has succeeded"


def test_two_processes_tell_it_once(programs: Programs, config: Path) -> None:
    words = train_net_words("--num-gpus", "2", WRONG, config=config)
    status, output = programs.finish(words, config.parent)
    assert status == 1
    assert output.count("error: ") == output.count(TOLD) == 1
    assert "Traceback" not in output


def test_an_earlier_evaluation_is_not_the_result(train_net: TrainNet) -> None:
    """A run that a signal stops has not failed to reach its number."""
    with pytest.raises(SystemExit) as end:
        train_net(WRONG, "train.eval_period=1", "model.stop_from=2")
    assert end.value.code == 128 + 15


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("bbox,APP", "bbox/AP"), ("bbox,AP-nutt", "AP-nut"), ("ema/bbox,AP", "ema.enabled=True")],
)
def test_a_metric_that_is_none_is_told_first(config: Path, metric: str, expected: str) -> None:
    cfg, _ = load_config(str(config), [f"train.expected_results=[[{metric},50,5]]"])
    cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="a")
    for training in (True, False):
        with pytest.raises(InputError, match=expected):
            _check_metrics(cfg, {1: "nut"}, training=training)


def test_needs_an_evaluation(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train_net(RIGHT, "dataloader.evaluator=null")
    assert "train.expected_results needs dataloader.test" in capsys.readouterr().err
