"""Out of memory: recognising it, and the smaller parts that a batch is then trained in.

The gradients of the parts are added up, weighted by their items, so that the batch of a step and the number of steps
stay. Batch norm then normalizes by the items of each part, and updates its running statistics once for each: the more
parts, the noisier they are. A loss that is a mean over something else than items, such as tokens with labels, weighs a
part by its items all the same.
"""

from __future__ import annotations

import gc
from itertools import pairwise

import torch
from torch import nn

from autocompress.errors import TechniqueError
from autocompress.training.batch_norm import has_batch_norm
from autocompress.training.schedule import Schedule

# beginnings of what torch says when the CPU has no memory left, on Linux and on Windows
OF_THE_CPU = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors that torch and Python raise where memory is short."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OF_THE_CPU)


def release_memory() -> None:
    """Return what is not used any more, after an error whose traceback is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parts_of(items: int, size: int) -> list[slice]:
    """The items of a batch in parts of nearly equal length, of at most `size` items each."""
    count = -(-items // size)
    ends = [items * place // count for place in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def smaller_parts(schedule: Schedule, step: int, batch: int, student: nn.Module, told: str) -> Schedule:
    """The schedule with parts of half the size from a step on, which ran out of memory.

    Raises:
        TechniqueError: when the parts are as small as they can be.
    """
    # batch norm needs more than one item in each part
    least = 4 if has_batch_norm(student) else 1
    size = min(schedule.micro_batch_at(step), batch)
    if size <= least:
        raise TechniqueError(
            f"training does not fit into memory, even with {size} items at a time ({told}).", where="recovery"
        )
    return schedule.with_micro_batch(step, max(least, size // 2))
