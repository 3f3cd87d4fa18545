"""The user's data of the end-to-end tests, as callables; copied beside models.py."""

from __future__ import annotations

import numpy as np

from autocompress import Task
from autocompress.core.source import third
from autocompress.data.data_spec import load_data


def _test() -> tuple[np.ndarray, np.ndarray]:
    part = load_data("digits").everything
    (images,), labels = part.source.read([int(i) for i in part.indices])
    return images.copy(), labels.copy()


def one_hot_targets() -> Task:
    """Scored by its error: no rate, so points of accuracy mean nothing."""
    images, labels = _test()
    return Task(test=(images, np.eye(10, dtype=np.float32)[labels]), score="negative_error")


def late_label() -> Task:
    """One label that no class has, among the items that confirm."""
    images, labels = _test()
    labels[third(len(labels), selects=False)[-1]] = 99
    return Task(test=(images, labels))


def single() -> Task:
    """One item: it selects, and none is left to confirm."""
    images, labels = _test()
    return Task(test=(images[:1], labels[:1]))


def no_scores() -> Task:
    """A score function that gives one number for all items."""
    images, labels = _test()
    return Task(test=(images, labels), score=lambda outputs, targets: outputs.mean())


def pair() -> tuple[np.ndarray, np.ndarray]:
    return _test()
