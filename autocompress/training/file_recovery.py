"""What techniques share that train a quantized file: where its training is kept, and its schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from autocompress.core.artifact import Artifact
from autocompress.core.code_hash import code_hash
from autocompress.core.plan import Setting
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.errors import TechniqueError
from autocompress.training.cost import VIEWS
from autocompress.training.recovery import Files
from autocompress.training.schedule import Schedule, changes_in


def labelled_task(context: Context, name: str) -> Task:
    """The task of a context, which has training data.

    Raises:
        TechniqueError: where there are none.
    """
    if context.task is None or context.task.train is None:
        raise TechniqueError("needs training data, and there are none.", where=name)
    return context.task


def teacher_of(context: Context, name: str) -> Artifact:
    """The file to learn from: the unchanged model's, which answers better than a network that was pruned.

    Raises:
        TechniqueError: where there is no float file.
    """
    found = context.original or context.unquantized
    if found is None:
        raise TechniqueError("needs the float file that the quantized one was made from.", where=name)
    return found


def schedule_of(settings: Mapping[str, Setting], name: str) -> Schedule:
    """The schedule that a technique's settings describe."""
    cuts, parts = changes_in(settings, name)
    return Schedule(
        int(settings["steps"]),
        int(settings["batch"]),
        int(settings["seed"]),
        float(settings["learning_rate"]),
        str(settings["optimizer"]),
        VIEWS,
        weight_decay=0.0,
        cuts=cuts,
        micro_batches=parts,
    )


def files_of(
    artifact: Artifact, teacher: Artifact, schedule: Schedule, settings: Mapping[str, Setting], context: Context
) -> Files:
    """The checkpoint and the teacher's answers, in the folder that outlives the finish's own."""
    task = context.task
    assert task is not None
    data = (whole("train", task.train).hash, code_hash(task.augment), schedule.batch, schedule.seed, schedule.views)
    folder: Path = context.shared or context.folder
    checkpoint = folder / f"training-{_digest(artifact.hash, teacher.hash, data, sorted(settings.items()))}.pt"
    answers = context.shared and context.shared / f"teacher-{_digest(teacher.hash, data)}.pt"
    return Files(checkpoint, answers)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
