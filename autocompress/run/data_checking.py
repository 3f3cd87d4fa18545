"""Checks a run's data when it opens, as far as they can be read in seconds."""

from __future__ import annotations

import numpy as np

from autocompress.core.artifact import Artifact
from autocompress.core.data_check import DataCheck
from autocompress.core.runtime import feeds, main_shape
from autocompress.core.targets import rows_in
from autocompress.core.task import Task
from autocompress.data.repeated_items import (
    BATCH,
    TRAIN_SECONDS,
    find_repeats,
    hashed,
    judged_seconds,
    reading_order,
    require_stable,
)
from autocompress.evaluation.item_checks import ItemChecks, require_counted
from autocompress.system.progress import Deadline

# share of the time left that looking for repeated items among the training items may take
SHARE_FOR_TRAINING_ITEMS = 0.1


def check_data(task: Task | None, baseline: Artifact, seconds: float = TRAIN_SECONDS) -> DataCheck:
    """Read test and validation items, to find errors and repeated items before any work.

    All of them are read where they are few or lie in memory, else for some seconds; the others are checked when they
    are read to be judged. Nothing is scored. Training items are read for about `seconds`, only to find repeated ones.

    Raises:
        DataError: when shapes, dtypes or values do not fit the model, a label is none of its classes, an item has no
            token that counts, or test or validation items are others each time they are read.
    """
    if task is None:
        return DataCheck()
    outputs = main_shape(baseline)
    classes = outputs[1] if len(outputs) == 2 else None
    sources = hashed(task)
    for field, source in sources.items():
        require_stable(getattr(task, field), f"{task.name}: {field}")
        order = reading_order(task, field, source, judged_seconds(seconds))
        read, check = 0, ItemChecks(task, field, classes)
        for _, targets in feeds(order.split, baseline, order.split.rows_within(BATCH)):
            rows = rows_in(targets)
            items = order.split.indices[read : read + rows].tolist()
            # `feeds` has checked the inputs
            check(items, (), targets)
            require_counted(task, targets, f"{task.name}: {field}", items)
            if task.chooses_classes and classes is not None:
                # placeholder outputs will do, since only the labels are checked
                task.scores(np.zeros((rows, classes), dtype=np.float32), targets)
            read += rows
            if order.is_over(read):
                break
    return find_repeats(task, sources, seconds, ItemChecks(task, "train", classes))


def seconds_for_training_items(deadline: Deadline) -> float:
    """How long training items may be read for: a share of the time limit where there is one."""
    left = deadline.left
    return TRAIN_SECONDS if left is None else min(TRAIN_SECONDS, SHARE_FOR_TRAINING_ITEMS * left)
