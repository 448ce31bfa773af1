"""Training data in an order that a resumed run continues."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from detectron2.data.build import trivial_batch_collator
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from brloss_d2.engine.randomness import seeded

logger = logging.getLogger(__name__)
_POSITION = "position_in_stream"
# Tells the key of an image from that of the loader itself.
_IMAGE, _LOADER = 0, 1

Batch = list[dict[str, Any]]


class ResumableLoader:
    """A data loader whose n-th image is the same at any time and in any worker.

    The images of a run form one endless stream, in the order of the sampler. Each is mapped with
    random numbers of its own, drawn from the seed and its position in the stream, so that a
    checkpoint only holds the position. Images that wait for others of their aspect ratio are
    loaded again.

    This holds for the loaders of detectron2's `build_detection_train_loader` over a dataset with
    indices and without `collate_fn`; others start from the beginning if a run is resumed. A mapper
    must not keep a state of its own.

    Args:
        loader: endless batches. Its dataset and sampler are wrapped in place.
        seed: seed of the run, the same in all processes.

    Attributes:
        torch_loader: torch's loader inside, which has the workers; None for other kinds.
        next_position: position in the stream of the next image to be drawn.
        waiting: earlier positions that wait for others of their aspect ratio.
    """

    def __init__(self, loader: Iterable[Batch], seed: int):
        self.loader, self.seed = loader, seed
        self.next_position = 0
        self.waiting: list[int] = []
        inner: Any = loader
        grouped = isinstance(inner, AspectRatioGroupedDataset)
        inner = inner.dataset if grouped else inner
        self.torch_loader = inner if isinstance(inner, DataLoader) else None
        stream = getattr(self.torch_loader, "dataset", None)
        self._stream: ToIterableDataset | None = None
        if isinstance(stream, ToIterableDataset) and stream.shard_sampler:
            if grouped:
                # Workers take turns image by image, so that images keep the order of the sampler.
                stream.shard_chunk_size = 1
            if grouped or inner.collate_fn is trivial_batch_collator:
                self._stream, self._sampler = stream, stream.sampler
                stream.dataset = _PositionedDataset(stream.dataset, seed)

    def __iter__(self) -> Iterator[Batch]:
        if self._stream is None:
            yield from self.loader
            return
        self._stream.sampler = _PositionedSampler(self._sampler, self.waiting, self.next_position)
        with seeded((_LOADER, self.seed)):  # torch draws a seed for workers with the first batch
            batches = iter(self.loader)
            first = next(batches)
        for batch in chain([first], batches):
            positions = [image.pop(_POSITION) for image in batch]
            # The image that completes a batch is the last one drawn.
            end = max(self.next_position, max(positions) + 1)
            drawn = chain(self.waiting, range(self.next_position, end))
            self.waiting = sorted(set(drawn) - set(positions))
            self.next_position = end
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream."""
        return {"next_position": self.next_position, "waiting": list(self.waiting)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position in the stream, before the first batch is taken."""
        self.next_position, self.waiting = state["next_position"], list(state["waiting"])
        if self._stream is None:
            logger.warning(
                "The order of this data loader is unknown: its data start from the beginning. "
                "Expected one of detectron2's build_detection_train_loader, over a list or a "
                "dataset with indices."
            )


def divided_anew(
    positions: Sequence[Mapping[str, Any]], rank: int, processes: int
) -> dict[str, Any]:
    """Return where one of another number of processes continues the images of a run.

    Image n of process r of W is image n W + r of one stream, also for its random numbers. Those
    that the earlier processes have not used yet come first.

    Args:
        positions: `ResumableLoader.state_dict()` of each earlier process.
        rank: number of the process among the new ones.
        processes: number of new processes.
    """
    furthest = max(position["next_position"] for position in positions) * len(positions)
    end = -(-furthest // processes)
    waiting = []
    for number in range(end):
        earlier, owner = divmod(number * processes + rank, len(positions))
        own = positions[owner]
        if earlier >= own["next_position"] or earlier in own["waiting"]:
            waiting.append(number)
    return {"next_position": end, "waiting": waiting}


class _PositionedSampler:
    """Pairs (position, index) of a sampler's stream, from a position on."""

    def __init__(self, sampler: Iterable[int], waiting: Iterable[int], start: int):
        self.sampler, self.waiting, self.start = sampler, set(waiting), start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stream = enumerate(self.sampler)
        yield from (pair for pair in islice(stream, self.start) if pair[0] in self.waiting)
        yield from stream


class _PositionedDataset(Dataset):
    """Images of a dataset, each mapped with the random numbers of its position in the stream."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __getitem__(self, pair: tuple[int, int]) -> dict[str, Any]:
        position, index = pair
        with seeded((_IMAGE, self.seed, position * self.world_size + self.rank)):
            return {**self.dataset[index], _POSITION: position}
