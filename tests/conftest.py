"""One thread per test process, since the suite runs several of them; long tests come first.

Configs of the repository are read once per process, whoever loads them.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from tests.helpers import configs
from tests.helpers.programs import Programs

# Files that take longest, most of them because they start programs. xdist would begin with the
# files of most tests, and one process would work on these while the others have nothing to do.
LONG = (
    "docs/test_commands.py",
    "losses/test_compile_amp.py",
    "engine/test_signals.py",
    "test_installed.py",
    "engine/test_processes.py",
    "modeling/test_cascade_mask_rcnn.py",
    "benchmarks/test_compare_losses.py",
    "engine/test_kill.py",
    "projects/co_detr/test_co_detr.py",
    "ops/test_triton.py",
    "evaluation/test_published_datasets.py",
    "cli/test_convert.py",
    "benchmarks/test_losses.py",
    "engine/test_slurm.py",
)

# Loggers that a training run takes to its own log.
LOGGERS = ("brloss_d2", "detectron2", "fvcore")

torch.set_num_threads(1)
LazyConfig.load = staticmethod(configs.load)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the files for `pytest -n`: long ones first, then those of most tests."""
    if not hasattr(config, "workerinput"):
        return
    folder, tests = Path(__file__).parent, Counter(item.path for item in items)
    names = {path: path.relative_to(folder).as_posix() for path in tests}
    place = {path: LONG.index(name) if name in LONG else len(LONG) for path, name in names.items()}
    items.sort(key=lambda item: (place[item.path], -tests[item.path]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, bool, bool]:
    """Give no test the loggers of the one before it: their level, the files that they write.

    `caplog` found nothing if another file of the same process had raised a level.
    """
    result = yield
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
    return result


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Runs programs that need a process of their own, but not an import of torch for each."""
    found = Programs()
    yield found
    found.close()
