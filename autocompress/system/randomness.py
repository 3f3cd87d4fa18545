"""Seeds for the global generators, from which the user's transforms, augmentation and modules draw."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import numpy as np

_SHIFT = ContextVar("shift of all seeds", default=0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside the block, and restore them.

    Those of GPUs are included where torch uses any.
    """
    own, numpys = random.getstate(), np.random.get_state()
    # where torch was never imported nothing can draw from it, and importing it takes a second
    torch = sys.modules.get("torch")
    with ExitStack() as stack:
        if torch is not None:
            gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices=gpus))
        stack.callback(np.random.set_state, numpys)
        stack.callback(random.setstate, own)
        seed_all(seed)
        yield


@contextmanager
def reseeded() -> Iterator[None]:
    """Let the same seeds stand for other draws inside the block, so that what depends on them shows."""
    token = _SHIFT.set(_SHIFT.get() + 1)
    try:
        yield
    finally:
        _SHIFT.reset(token)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch; to be called inside `seeded`."""
    seed += _SHIFT.get() * 1_000_000_007
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        # torch.manual_seed would put the seeds of a GPU that is never used into a queue that grows
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
