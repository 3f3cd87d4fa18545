from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocompress.core.source import whole
from autocompress.core.targets import is_unlabelled
from autocompress.core.task import Task
from autocompress.errors import DataError

X = np.random.default_rng(0).random((20, 4), dtype=np.float32)
Y = np.zeros(20, dtype=np.int64)


@pytest.mark.parametrize(
    "train",
    [X, (X, None), {"a": X}, TensorDataset(torch.from_numpy(X)), list(X), [{"a": row} for row in X]],
    ids=["array", "pair", "dict", "dataset", "list", "mappings"],
)
def test_training_items_need_no_targets(train: Any) -> None:
    inputs, targets = next(whole("train", Task(test=(X, Y), train=train).train).batches(3))
    (values,) = inputs.values() if isinstance(inputs, dict) else inputs
    assert values.shape == (3, 4)
    assert is_unlabelled(targets)
    with pytest.raises(DataError, match="train: holds items without targets, and the loss takes targets"):
        Task(test=(X, Y), train=train, loss=nn.CrossEntropyLoss())


def test_test_items_need_them_and_pairs_in_a_list_have_them() -> None:
    with pytest.raises(DataError, match="items have no target"):
        next(whole("test", Task(test=X).test).batches(3))
    assert not is_unlabelled(Task(test=(X, Y), train=[X, Y]).train.targets)
