"""Batches that the workers of the user's DataLoader read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from autocompress.core.data_sources import as_source
from autocompress.core.loader_workers import MOST_BYTES_AHEAD, Workers
from autocompress.core.source import DatasetSource, whole
from autocompress.errors import DataError

ITEMS = 24


class Told(Dataset[Any]):
    """Items that say which process read them, and what the worker was told when it began."""

    def __init__(self, broken: int = -1) -> None:
        self.broken, self.told = broken, 0

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if index == self.broken:
            raise FileNotFoundError(f"img_{index}.png")  # is missing
        return np.array([index, os.getpid(), self.told, float(torch.rand(()))], dtype=np.float64), index


def tell(_worker: int) -> None:
    """Told to the user's own dataset, as functions that open files there do."""
    info = get_worker_info()
    assert info is not None
    info.dataset.told = 7


def refuse(_worker: int) -> None:
    raise OSError("no such disk")  # is gone


def batches(loader: DataLoader[Any], size: int = 8) -> np.ndarray:
    source = as_source(loader)
    assert source is not None
    return np.concatenate([inputs[0] for inputs, _ in whole("test", source).batches(size)])  # type: ignore[index]


def test_batches_are_read_by_the_loaders_workers_as_it_starts_them() -> None:
    found = batches(DataLoader(Told(), batch_size=3, num_workers=2, worker_init_fn=tell))
    alone = batches(DataLoader(Told(), batch_size=3))
    # the same items with the same random numbers, in the same order
    np.testing.assert_array_equal(found[:, [0, 3]], alone[:, [0, 3]])
    assert set(alone[:, 1]) == {os.getpid()}
    assert len(set(found[:, 1]) - {os.getpid()}) == 2
    assert set(found[:, 2]) == {7}
    assert os.getpid() not in found[:, 1]


def test_a_single_batch_starts_no_worker() -> None:
    assert set(batches(DataLoader(Told(), num_workers=2), ITEMS)[:, 1]) == {os.getpid()}


def test_an_error_in_a_worker_names_the_users_line() -> None:
    with pytest.raises(DataError) as caught:
        batches(DataLoader(Told(broken=17), num_workers=2))
    assert "item 17 raised FileNotFoundError: img_17.png" in caught.value.message
    assert 'raise FileNotFoundError(f"img_{index}.png")  # is missing' in caught.value.message
    assert "\n" not in str(caught.value)


def test_an_error_of_the_workers_own_start_names_the_users_line() -> None:
    with pytest.raises(DataError, match=r"worker_init_fn raised OSError: no such disk \(.*# is gone\)"):
        batches(DataLoader(Told(), num_workers=1, worker_init_fn=refuse))


def test_the_callers_generators_stay_as_they_are() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    batches(DataLoader(Told(), num_workers=1))
    assert torch.equal(torch.rand(2), wanted)


def test_large_batches_are_not_read_far_ahead() -> None:
    workers = Workers(8, 4, 0, None, None, None)
    assert workers.within(1000) == (8, 4)
    assert workers.within(MOST_BYTES_AHEAD // 16) == (8, 2)
    assert workers.within(MOST_BYTES_AHEAD // 3) == (3, 1)
    assert workers.within(MOST_BYTES_AHEAD * 10) == (1, 1)


def test_a_loader_without_workers_is_read_here() -> None:
    source = as_source(DataLoader(Told()))
    assert isinstance(source, DatasetSource)
    assert source.workers is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, sys, time, torch
        from torch.utils.data import DataLoader
        from autocompress.core.data_sources import as_source
        from autocompress.core.source import whole
        class Slow:
            def __len__(self): return 100
            def __getitem__(self, index):
                time.sleep(0.05)
                return torch.tensor([os.getpid()]), 0
        for inputs, _ in whole("test", as_source(DataLoader(Slow(), num_workers=2))).batches(4):
            print(int(inputs[0][0, 0]), flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = {int(process.stdout.readline()) for _ in range(2)}
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(workers) == 2
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
