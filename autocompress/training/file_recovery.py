"""What techniques share that train a quantized file: settings, schedule, files, the last check."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from autocompress.core.artifact import Artifact
from autocompress.core.plan import CUTS, MICRO_BATCHES, Setting
from autocompress.core.runtime import feeds
from autocompress.core.search_space import Choice
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.data.output_recognition import kinds_of
from autocompress.errors import TechniqueError
from autocompress.training.agreement import agreement, layer_gaps, require_agreement
from autocompress.training.cost import VIEWS
from autocompress.training.file_training import FileModule, Learned, file_example, step_seconds
from autocompress.training.recovery import Files
from autocompress.training.schedule import Schedule, changes_in
from autocompress.training.teacher_cache import answers_file

# items on which the file is compared with what was trained
COMPARED = 1024
TRAINING_CHOICES: tuple[Choice, ...] = (
    Choice("batch", (64, 32, 16, 128), structural=False, describes="items in a batch"),
    Choice(
        "learning_rate",
        (0.001, 0.0005, 0.002, 0.005, 0.01, 0.0001),
        structural=False,
        describes="the highest rate of the schedule",
    ),
    Choice("optimizer", ("sgd", "adamw"), structural=False, describes="SGD with Nesterov momentum 0.9, or AdamW"),
    Choice("seed", (0, 1, 2), structural=False, describes="of order and augmentation"),
    Choice(CUTS, (), structural=False, describes="where the time turned out too short", optional=True),
    Choice(MICRO_BATCHES, (), structural=False, describes="where memory turned out too small", optional=True),
)


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


def seconds_of_step(
    artifact: Artifact, settings: Mapping[str, Setting], context: Context, learned: Learned
) -> float | None:
    """The seconds of one step of a training with these settings; None without a task or a float file."""
    teacher = context.original or context.unquantized
    if context.task is None or teacher is None:
        return None
    return step_seconds(artifact, teacher, context.task, context.example, int(settings["batch"]), learned)


def schedule_of(settings: Mapping[str, Setting], name: str) -> Schedule:
    """The schedule that the settings of a technique of this name describe."""
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
    assert context.task is not None
    answers = answers_file(teacher.hash, context.task, schedule)
    key = repr((artifact.hash, answers, sorted(settings.items())))
    folder: Path = context.shared or context.folder
    checkpoint = folder / f"training-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    return Files(checkpoint, context.shared and context.shared / answers)


def require_what_was_trained(trained: FileModule, made: Artifact, context: Context, name: str) -> None:
    """Check that a file computes what was trained; else it is taken away.

    Raises:
        TechniqueError: when it does not, with the layers that differ.
    """
    task = labelled_task(context, name)
    kinds = kinds_of(file_example(context.example, trained), trained, task)
    split = (task.validation or whole("train", task.train)).first(COMPARED)
    found = agreement(trained.graph, made, split, task, kinds)
    if not found.holds:
        feed, _ = next(feeds(split.first(32), made, 32))
        gaps = layer_gaps(trained.graph, made, feed, context.unquantized)
        made.path.unlink()
        require_agreement(found, gaps, name)
