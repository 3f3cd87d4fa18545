"""Worker processes that read batches ahead, as many and started as the user's DataLoader says."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from autocompress.core.user_code import raised_by_user
from autocompress.errors import AutocompressError
from autocompress.system.parent import end_with_parent

# bytes of batches that all workers together may have read ahead
MOST_BYTES_AHEAD = 256_000_000


@dataclass(frozen=True, eq=False)
class Workers:
    """The workers of a DataLoader: how many, how they start, and how many batches each reads ahead.

    `dataset` is the loader's own one, which `torch.utils.data.get_worker_info()` shows to the user's functions.
    """

    count: int
    prefetch: int
    timeout: float
    dataset: Any
    init: Callable[[int], Any] | None
    context: Any

    @staticmethod
    def of(loader: Any) -> Workers | None:
        """The workers of a DataLoader, None where it has none."""
        if not loader.num_workers:
            return None
        return Workers(
            loader.num_workers,
            loader.prefetch_factor or 2,
            loader.timeout,
            loader.dataset,
            loader.worker_init_fn,
            loader.multiprocessing_context,
        )

    def within(self, batch_bytes: int) -> tuple[int, int]:
        """Workers, and batches that each reads ahead, that keep to the bytes that may be read ahead."""
        batches = max(1, MOST_BYTES_AHEAD // max(1, batch_bytes))
        count = min(self.count, batches)
        return count, max(1, min(self.prefetch, batches // count))


def read_ahead(
    read: Callable[[Any], Any], requests: Iterable[Any], workers: Workers, batch_bytes: int, where: str
) -> Iterator[Any]:
    """What `read` gives for each request, in order, read by the workers ahead of the caller.

    `batch_bytes` is the size of one batch, about. The workers end with the iterator, and with this process.

    Raises:
        AutocompressError: as `read` does in a worker.
    """
    import torch
    from torch.utils.data import DataLoader

    count, prefetch = workers.within(batch_bytes)
    batches: Any = _Batches(read, workers.dataset, workers.init, where)
    loader: Any = DataLoader(
        batches,
        batch_size=None,
        sampler=requests,
        num_workers=count,
        prefetch_factor=prefetch,
        timeout=workers.timeout,
        collate_fn=_as_read,
        worker_init_fn=_begin,
        multiprocessing_context=workers.context,
        # the first number of each worker comes from it, else from the caller's global generator
        generator=torch.Generator(),
    )
    for found in loader:
        if isinstance(found, _Failure):
            raise found.error()
        yield found


class _Batches:
    """What the workers' loader takes for its dataset: requests go in, batches or failures come out."""

    def __init__(self, read: Callable[[Any], Any], dataset: Any, init: Callable[[int], Any] | None, where: str) -> None:
        self.read, self.dataset, self.init, self.where = read, dataset, init, where
        self.failure: _Failure | None = None

    def __getitem__(self, request: Any) -> Any:
        return self.failure or _tried(functools.partial(self.read, request))


@dataclass(frozen=True)
class _Failure:
    """An error of this package on its way out of a worker, with the user's line in its message."""

    kind: type[AutocompressError]
    message: str
    where: str
    hint: str

    def error(self) -> AutocompressError:
        return self.kind(self.message, where=self.where, hint=self.hint)


def _tried(call: Callable[[], Any]) -> Any:
    # torch would put the traceback into the text of an error and lose its fields
    try:
        return call()
    except AutocompressError as error:
        return _Failure(type(error), error.message, error.where, error.hint)


def _begin(worker: int) -> None:
    """Start a worker: the user's `worker_init_fn` finds the user's dataset in `get_worker_info()`."""
    from torch.utils.data import get_worker_info

    end_with_parent()
    # an iterator that was left over in the parent would be collected here, and complain of not being its parent
    gc.freeze()
    info: Any = get_worker_info()
    batches: _Batches = info.dataset
    # it is a frozen object of torch's
    object.__setattr__(info, "dataset", batches.dataset)
    if batches.init is None:
        return
    started = _tried(functools.partial(_initialized, batches, worker))
    batches.failure = started if isinstance(started, _Failure) else None


def _initialized(batches: _Batches, worker: int) -> None:
    assert batches.init is not None
    with raised_by_user(batches.where, "worker_init_fn raised", batches.init):
        batches.init(worker)


def _as_read(batch: Any) -> Any:
    return batch
