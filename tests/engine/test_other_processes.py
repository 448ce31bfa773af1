"""A run that another number of processes continues."""

from pathlib import Path

import numpy as np
import pytest
import torch

from brloss_d2.engine.data_order import divided_anew
from tests.helpers.programs import Programs, train_net_words

OPTIONS = ("dataloader.train.dataset.images=2", "dataloader.train.total_batch_size=4")


def images(positions: list[dict], end: int) -> list[int]:
    """Images of the stream that processes at these positions have not used yet."""
    return sorted(
        number * len(positions) + rank
        for rank, position in enumerate(positions)
        for number in (*position["waiting"], *range(position["next_position"], end))
        if number * len(positions) + rank < end
    )


@pytest.mark.parametrize("before", [1, 2, 3, 8])
@pytest.mark.parametrize("after", [1, 2, 3, 8])
def test_every_unused_image_follows_once(before: int, after: int) -> None:
    rng = np.random.default_rng(before + 10 * after)
    positions = [
        {"next_position": int(n), "waiting": sorted(set(rng.integers(n, size=3).tolist()))}
        for n in rng.integers(40, 50, size=before)
    ]
    moved = [divided_anew(positions, rank, after) for rank in range(after)]
    assert images(moved, 500) == images(positions, 500)
    assert images([divided_anew(moved, rank, before) for rank in range(before)], 500) == images(
        positions, 500
    )


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_the_run_is_that_of_one_process(
    programs: Programs, config: Path, tmp_path: Path, before: int, after: int
) -> None:
    """Killed in its last step, it goes on from the third with other processes."""
    whole, other = tmp_path / "whole", tmp_path / "out"
    programs.train_net(*OPTIONS, f"train.output_dir={whole}", config=config)
    options = ("--num-gpus", str(before), *OPTIONS, "model.kill_from=3")
    assert programs.finish(train_net_words(*options, config=config), config.parent)[0]
    options = ("--resume", "--num-gpus", str(after), *OPTIONS)
    shown = programs.train_net(*options, config=config)
    assert "its images continue" in shown and "2 of 4 iterations done" in shown
    weights = (torch.load(out / "model_final.pth", weights_only=True) for out in (whole, other))
    one, two = (content["model"]["linear.weight"] for content in weights)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=0)
