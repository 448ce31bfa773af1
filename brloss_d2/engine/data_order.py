"""Training data in an order that a resumed run continues."""

import logging
from collections.abc import Iterable, Iterator, Mapping
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
    """A loader whose n-th image comes out the same whenever, and by whichever worker, it is loaded.

    The images of a run form one endless stream, in the order of the sampler. Each is mapped with
    random numbers of its own, drawn from the seed and its place in the stream, so that the place
    reached is all that a checkpoint has to hold. Images that wait for others of their aspect ratio
    are loaded again.

    `with_workers` is torch's loader inside, if there is one.

    This is known of the loaders that detectron2's `build_detection_train_loader` makes, of a data
    set with indices and without `collate_fn`; another one begins anew when a run is resumed. A
    mapper may not keep a state of its own.
    """

    def __init__(self, loader: Iterable[Batch], seed: int):
        """
        Args:
            loader: endless batches. Its data set and sampler are wrapped in place.
            seed: of the run, the same in all processes.
        """
        self.loader, self.seed = loader, seed
        self.next_position = 0
        # Positions before the next one that wait for others of their aspect ratio.
        self.waiting: list[int] = []
        self.with_workers = _torch_loader(loader)
        self._stream = _stream_of(loader)
        if self._stream is not None:
            self._stream.dataset = _PlacedDataset(self._stream.dataset, seed)
            self._sampler = self._stream.sampler

    def __iter__(self) -> Iterator[Batch]:
        if self._stream is None:
            yield from self.loader
            return
        self._stream.sampler = _PlacedSampler(self._sampler, self.waiting, self.next_position)
        with seeded((_LOADER, self.seed)):  # with the first batch torch draws a seed for workers
            batches = iter(self.loader)
            first = next(batches)
        for batch in chain([first], batches):
            self._advance([image.pop(_POSITION) for image in batch])
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream."""
        return {"next_position": self.next_position, "waiting": list(self.waiting)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place in the stream, before the first batch is taken."""
        self.next_position, self.waiting = state["next_position"], list(state["waiting"])
        if self._stream is None:
            logger.warning(
                "The order of this data loader is not known: its data begin anew. Expected one of "
                "detectron2's build_detection_train_loader, over a list or a data set with indices."
            )

    def _advance(self, positions: list[int]) -> None:
        # The image that completes a batch is the last one drawn.
        end = max(self.next_position, max(positions) + 1)
        drawn = chain(self.waiting, range(self.next_position, end))
        self.waiting = sorted(set(drawn) - set(positions))
        self.next_position = end


class _PlacedSampler:
    """Pairs (position, index) of a sampler's stream, from a position on."""

    def __init__(self, sampler: Iterable[int], waiting: Iterable[int], start: int):
        self.sampler, self.waiting, self.start = sampler, list(waiting), start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stream = enumerate(self.sampler)
        waiting = set(self.waiting)
        for pair in islice(stream, self.start):
            if pair[0] in waiting:
                yield pair
        yield from stream


class _PlacedDataset(Dataset):
    """The images of a data set, each mapped with the random numbers of its place in the stream."""

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        position, index = place
        with seeded((_IMAGE, self.seed, position * self.world_size + self.rank)):
            return {**self.dataset[index], _POSITION: position}


def _torch_loader(loader: Any) -> DataLoader | None:
    inner = loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader
    return inner if isinstance(inner, DataLoader) else None


def _stream_of(loader: Any) -> ToIterableDataset | None:
    """Find what a loader of `build_detection_train_loader` reads from; None for another one."""
    inner, grouped = _torch_loader(loader), isinstance(loader, AspectRatioGroupedDataset)
    stream = getattr(inner, "dataset", None)
    if not isinstance(stream, ToIterableDataset) or not stream.shard_sampler:
        return None
    if grouped:
        # Workers take turns image by image then, so that the images come in the sampler's order.
        stream.shard_chunk_size = 1
    return stream if grouped or inner.collate_fn is trivial_batch_collator else None
