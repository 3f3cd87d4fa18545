"""Temporary folders that are removed even after their process was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autocompress.system.workers import Worker, left_by_the_dead

PREFIX = "autocompress-"


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A new temporary folder, removed afterwards; its name holds the process that made it."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{purpose}{Worker.me().tag}") as folder:
        yield Path(folder)


def sweep_scratch() -> int:
    """Remove the temporary folders of this user's killed processes, and return their number."""
    swept = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            mine = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
        except OSError:
            continue  # another process has removed it
        if mine and left_by_the_dead(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
            swept += 1
    return swept
