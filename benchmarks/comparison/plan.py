"""Trainings of a comparison, as the command line asks for them."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from brloss_d2.data import CustomData, read_coco
from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import learns_masks
from comparison.cases import Case
from comparison.data import Data
from comparison.recipe import losses_of, with_loss
from comparison.runs import PREFIXES, Run, finished_arguments
from comparison.tuning import learning_rates, rate_factors

DEFAULT_LOSSES = ("ce", "focal", "qfl", "vfl", "mal", "rs", "brs")
_PER_RUN = (
    *("loss=", "train.seed=", "train.output_dir="),
    *(f"data.{key.name}=" for key in fields(CustomData)),
)
_OF_ONE_RUN = ("train.seed=", "train.output_dir=", "optimizer.lr=")
_METRICS = ("AP", "AP50", "AP75", "oLRP")


class Plan:
    """What is trained with each of the losses.

    Args:
        args: arguments of the command line.
        case: data, detector and settings.

    Attributes:
        output: folder of the comparison.
        overrides: overrides of all trainings.
        data: data, with a split to test on if a learning rate is chosen.
        losses: names of the losses.
        factors: factors of the learning rate, in increasing order; (1,) if none is chosen.
        rates: learning rates of each loss, one for each factor.
        metric: name of the metric to compare by; "" for the default.
        trials: trainings among which the learning rates are chosen.

    Raises:
        InputError: a mistake in the arguments, in the data, or in a config with one of the losses.
    """

    def __init__(self, args: argparse.Namespace, case: Case) -> None:
        self.factors = rate_factors(args.lr_grid, args.lr_factors)
        self.overrides = [*args.overrides, *case.varied]
        self._check_overrides()
        load_config(str(case.config), self.overrides)  # before anything is trained
        self.output: Path = args.output / case.name
        data, images = self._read_data(args, case.data)
        self.losses = choose_losses(args.losses, case.config)
        rates = learning_rates(args.lr, self.losses)
        self.configs = {loss: with_loss(case.config, loss, images) for loss in self.losses}
        for loss, cfg in self.configs.items():
            cfg.optimizer.lr = rates.get(loss, cfg.optimizer.lr)
            cfg.train.max_iter = args.iterations or cfg.train.max_iter
            cfg.train.eval_period = -(-cfg.train.max_iter // args.evaluations)
        self.metric = metric_name(args.metric, self.configs[self.losses[0]])
        self.rates = {
            loss: [cfg.optimizer.lr * factor for factor in self.factors]
            for loss, cfg in self.configs.items()
        }
        needs_test = self.tunes or data.test
        folder = self.output / "data"
        self.data = data.with_test(args.test_fraction, folder) if needs_test else data
        self._check_rare(args.rare)
        self.seeds = range(1, args.seeds + 1)
        tried = self.seeds[: args.tune_seeds] if self.tunes else self.seeds
        self.trials = [
            self.training(loss, self.rates[loss][number], seed)
            for seed in tried
            for number in range(len(self.factors))
            for loss in self.losses
        ]

    @property
    def tunes(self) -> bool:
        """Whether each loss is trained with other learning rates than that of its recipe."""
        return self.factors != [1.0]

    def training(self, loss: str, rate: float, seed: int) -> Run:
        """Return a training with a loss, a learning rate and a seed."""
        name = f"{loss}_seed{seed}" + f"_lr{rate:g}" * self.tunes
        config, folder = self.output / "configs" / f"{loss}.yaml", self.output / "runs" / name
        arguments = ["--config-file", str(config), *self.data.overrides, f"train.seed={seed}"]
        arguments += [f"train.output_dir={folder}", *self.overrides]
        if not self.tunes:
            return Run(loss, seed, config, folder, tuple(arguments))
        return Run(loss, seed, config, folder, (*arguments, f"optimizer.lr={rate:g}"), rate)

    def write_configs(self) -> dict[str, DictConfig]:
        """Write the config of each loss, but never replace that of a finished run.

        Returns:
            Loss -> config as the trainings have it, but for learning rate and seed.

        Raises:
            InputError: a run with another config or of another comparison has finished, or an
                override is wrong.
        """
        self._check_finished()
        folder = self.output / "configs"
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for loss, cfg in self.configs.items():
            path, new = folder / f"{loss}.yaml", folder / "new.yaml"
            LazyConfig.save(cfg, str(new))
            finished = [run for run in self.trials if run.loss == loss and run.has_ended()]
            if finished and path.read_bytes() != new.read_bytes():
                new.unlink()
                raise finished[0].other_settings()
            new.replace(path)
            try:
                found[loss], _ = load_config(str(path), [*self.data.overrides, *self.overrides])
            except InputError as error:
                raise InputError(f"{loss}: {error}") from error
        return found

    def _check_finished(self) -> None:
        """Check that finished runs in the folder have the data and overrides of this comparison."""
        own = _shared(self.trials[0].arguments)
        for folder, arguments in finished_arguments(self.output).items():
            if _shared(arguments) != own:
                raise InputError(
                    f"{folder} is a finished run of another comparison, with other data or "
                    "settings: give another --output."
                )

    def _check_overrides(self) -> None:
        for text in self.overrides:
            if text.lstrip("+").startswith(_PER_RUN):
                raise InputError(
                    f"{text!r}: every run has its own; see --losses, --data, --seeds and --output."
                )
            if self.tunes and text.lstrip("+").startswith("optimizer.lr="):
                raise InputError(f"{text!r}: give --lr RATE, whose multiples are compared.")

    def _check_rare(self, rare: Sequence[str]) -> None:
        """Check that AP of rare and of common classes can be measured, if it is asked for."""
        splits = ("val", "test") if self.data.test else ("val",)
        for split in splits if rare else ():
            content = read_coco(str(getattr(self.data, split)), masks=False)
            counts = Counter(record["category_id"] for record in content.annotations)
            known = {name for id_, name in content.categories.items() if counts[id_]}
            if not known & {*rare} or not known - {*rare}:
                raise InputError(
                    f"--rare={','.join(rare)}: {getattr(self.data, split)} has objects of "
                    f"{', '.join(sorted(known))} only, so that AP of rare and of common classes "
                    "cannot be told apart."
                )

    def _read_data(self, args: argparse.Namespace, text: str) -> tuple[Data, int]:
        """Return the data, as many as asked for, and the number of images to train with."""
        data = Data.parse(text)
        if args.images:
            data = data.first(args.images, self.output / "data")
        summary = data.check_train()
        names = list(summary.categories.values())
        if set(args.rare) - set(names) or set(args.rare) == set(names):
            raise InputError(
                f"--rare={','.join(args.rare)}: expected some, not all, of the classes "
                f"{', '.join(names)}."
            )
        return data, summary.images


def _shared(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that all trainings of a comparison have in common."""
    _option, _config, *others = arguments
    return [text for text in others if not text.startswith(_OF_ONE_RUN)]


def choose_losses(text: str | None, path: Path) -> list[str]:
    """Split the value of `--losses`; without one, return the default losses of the detector.

    Raises:
        InputError: no names, or a name twice.
    """
    known = losses_of(load_config(str(path))[0])
    if text is None:
        return [loss for loss in DEFAULT_LOSSES if loss in known]
    given = [loss for loss in text.split(",") if loss]
    if not given or len(set(given)) < len(given):
        raise InputError(f"--losses={text}: expected different names from {', '.join(known)}.")
    return given


def metric_name(text: str | None, cfg: DictConfig) -> str:
    """Return the name that tables have for the value of `--metric`; "" for none.

    Raises:
        InputError: the metric is unknown, or the detector has none of its kind.
    """
    if text is None:
        return ""
    tasks = ["bbox", "segm"] if learns_masks(cfg) else ["bbox"]
    task, _, name = text.partition("/")
    if task not in tasks or name not in _METRICS:
        known = [f"{task}/{name}" for task in tasks for name in _METRICS]
        raise InputError(f"--metric={text}: expected one of {', '.join(known)}.")
    return PREFIXES[task] + name
