"""The items that a DataLoader draws, read from its samplers; the dataset itself is not read."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from autocompress.errors import DataError

# a pass that draws more indices than this for each item of the dataset is taken to have no end
MOST_DRAWS = 20
# the same where the dataset has no length
MOST_DRAWS_UNSIZED = 10_000_000


@dataclass(frozen=True, eq=False)
class _Pass:
    """The indices of one pass in the order drawn; `shuffled` where another pass may have another order."""

    indices: list[int]
    shuffled: bool = False


def drawn_items(loader: Any, *, trains: bool) -> list[int]:
    """Indices of the items that every pass of a loader draws, in ascending order.

    An index that is drawn more often stands there as often for training, once for judging. What `drop_last` leaves out
    is left out where it is the same in every pass; where the order is drawn anew it leaves out nothing for good.

    Raises:
        DataError: when another pass may draw other items, a pass has no end, or an index is none of the dataset's.
    """
    batches = loader.batch_sampler
    drawn = _drawn(loader.sampler if batches is None else batches, _length(loader.dataset), trains=trains)
    return sorted(drawn.indices) if trains else sorted(set(drawn.indices))


def draws_lists(loader: Any) -> bool:
    """True for a loader that does not batch and asks its dataset for a list of items at once."""
    import torch

    if loader.batch_sampler is not None:
        return False
    with torch.random.fork_rng(devices=[]):
        first = next(iter(loader.sampler), None)
    return not _is_one(first)


def _drawn(sampler: Any, items: int | None, *, trains: bool) -> _Pass:
    """One pass of a sampler; subclasses may draw as they like, so that only the exact types are known."""
    from torch.utils.data import (
        BatchSampler,
        DistributedSampler,
        RandomSampler,
        SequentialSampler,
        SubsetRandomSampler,
        WeightedRandomSampler,
    )

    kind = type(sampler)
    if kind is BatchSampler:
        drawn = _drawn(sampler.sampler, items, trains=trains)
        return _without_last(drawn, sampler.batch_size) if sampler.drop_last else drawn
    if kind is SequentialSampler:
        return _Pass(_checked(range(len(sampler.data_source)), items, sampler))
    if kind is RandomSampler:
        n = len(sampler.data_source)
        if not trains and (sampler.replacement or sampler.num_samples < n):
            how = "with replacement" if sampler.replacement else f"{sampler.num_samples} of {n} items"
            raise _refused(sampler, f"draws {how} at random")
        return _Pass(_checked(range(n), items, sampler), shuffled=True)
    if kind is SubsetRandomSampler:
        return _Pass(_checked(sampler.indices, items, sampler), shuffled=True)
    if isinstance(sampler, WeightedRandomSampler):
        raise _refused(sampler, "draws at random by weights")
    if isinstance(sampler, DistributedSampler) and sampler.shuffle and sampler.num_replicas > 1:
        raise _refused(sampler, "gives this process other items in every epoch")
    drawn = _two_passes(sampler, items)
    return _Pass(drawn.indices, drawn.shuffled or (isinstance(sampler, DistributedSampler) and sampler.shuffle))


def _two_passes(sampler: Iterable[Any], items: int | None) -> _Pass:
    """A pass of a sampler that is not known, if a second pass draws the same items."""
    import torch

    # a sampler that draws must draw anew in the second pass, and the caller's generator is left as it was
    with torch.random.fork_rng(devices=[]):
        first, second = (_checked(_flat(sampler), items, sampler) for _ in range(2))
    if sorted(first) != sorted(second):
        raise _refused(sampler, "draws other items in every pass")
    return _Pass(first, shuffled=first != second)


def _without_last(drawn: _Pass, batch_size: int) -> _Pass:
    kept = len(drawn.indices) // batch_size * batch_size
    # where the order is drawn anew, the items left out are others in every pass, so that none is left out for good
    return drawn if drawn.shuffled and kept else _Pass(drawn.indices[:kept], drawn.shuffled)


def _flat(sampler: Iterable[Any]) -> Iterator[Any]:
    for one in sampler:
        if _is_one(one):
            yield one
        else:
            yield from one


def _is_one(drawn: Any) -> bool:
    return not isinstance(drawn, list | tuple) and np.ndim(drawn) == 0


def _checked(drawn: Iterable[Any], items: int | None, sampler: Any) -> list[int]:
    """The indices as whole numbers from 0.

    Raises:
        DataError: when one is no index of the dataset, or there is no end to them.
    """
    most = MOST_DRAWS_UNSIZED if items is None else MOST_DRAWS * max(items, 1)
    indices = []
    for place, value in enumerate(islice(drawn, most + 1)):
        if place == most:
            raise _refused(sampler, "does not end")
        try:
            index = operator.index(value)
        except TypeError:
            raise _refused(sampler, f"draws {value!r}, which is no whole number") from None
        if items is not None and not -items <= index < items:
            raise DataError(
                f"comes through a {type(sampler).__name__} that draws item {index} of {items}.",
                where="data",
                hint="Check that the sampler was made for this dataset.",
            )
        indices.append(index + items if items is not None and index < 0 else index)
    return indices


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _refused(sampler: Any, why: str) -> DataError:
    return DataError(
        f"comes through a {type(sampler).__name__}, which {why}, so it is not clear which items belong to it.",
        where="data",
        hint="Give a Dataset, for a part of one torch.utils.data.Subset.",
    )
