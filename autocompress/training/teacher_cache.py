"""A cache of the teacher's outputs for the batches of a bank of augmented views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from autocompress.core.code_hash import code_hash
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.system.workspace import write_atomically
from autocompress.training.checkpoints import load_checkpoint
from autocompress.training.schedule import Schedule

# most bytes of cached outputs; those of further batches are computed anew each time
MOST_KEPT_BYTES = 512_000_000
# the outputs for one batch by name
Answer = dict[str, torch.Tensor]


class TeacherCache:
    """Caches the teacher's outputs for a bank of views in a file that all recoveries of a run use.

    They are kept in the precision in which they were computed, so that a student learns the same from them as from
    fresh ones.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[int, Answer] = _read(path)
        self._bytes = sum(map(_bytes_of, self._known.values()))
        self._saved = len(self._known)

    def to(self, key: int, ask: Callable[[], Answer]) -> Answer:
        """The teacher's outputs for a batch, computed by `ask` when they are not cached."""
        if self._path is None:
            return ask()
        if key not in self._known:
            answer = {name: tensor.cpu() for name, tensor in ask().items()}
            if self._bytes + _bytes_of(answer) > MOST_KEPT_BYTES:
                return answer
            self._known[key] = answer
            self._bytes += _bytes_of(answer)
        return self._known[key]

    def save(self) -> None:
        """Write new outputs to the file."""
        if self._path is not None and len(self._known) > self._saved:
            known = {str(key): answer for key, answer in self._known.items()}
            write_atomically(self._path, lambda target: torch.save(known, target))
            self._saved = len(self._known)


def answers_file(teacher: str, task: Task, schedule: Schedule) -> str:
    """The name of the file that keeps a teacher's outputs for the bank of views that a schedule trains on.

    `teacher` tells teachers apart that answer within one run.
    """
    bank = (whole("train", task.train).hash, code_hash(task.augment), schedule.batch, schedule.seed, schedule.views)
    return f"teacher-{hashlib.sha256(repr((teacher, bank)).encode()).hexdigest()[:16]}.pt"


def _bytes_of(answer: Answer) -> int:
    return sum(tensor.nbytes for tensor in answer.values())


def _read(path: Path | None) -> dict[int, Answer]:
    known: dict[int, Answer] = {}
    if path is not None and path.exists():
        load_checkpoint(path, lambda found: known.update({int(key): dict(answer) for key, answer in found.items()}))
    return known
