"""Items that must not confirm, in whole runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from whole_runs import Runs

from autocompress.core.task import Task
from autocompress.core.verdict import Status
from autocompress.errors import DataError
from autocompress.run import gate
from autocompress.testing.fakes import items_of, ramp, task_of

TASK = task_of(ramp(300), ramp(1000))


class Noisy(Dataset[Any]):
    """Items with a random transform of their difficulty."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([2.0 * (index % 2) - 1.0, float(torch.rand(()))]), index % 2


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def trained_on_two_of_them() -> Task:
    (values,), labels = TASK.test.read([5, 9])
    more, others = items_of(ramp(50))
    return replace(TASK, train=(np.concatenate([more, values]), np.concatenate([others, labels])))


def test_items_that_were_trained_on_do_not_confirm_in_the_run_nor_when_it_is_resolved(runs: Runs) -> None:
    result = runs.start("run", trained_on_two_of_them())
    assert result.met
    assert result.certificate is not None
    assert result.certificate["data"]["items"] == result.certificate["data"]["read"] == 998
    sentence = "2 of 1,000 holdout items are also in train and left out: test 5 = train 50, test 9 = train 51."
    assert sentence in result.explanation
    written = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    assert written["data_check"]["left_out"] == 2
    assert written["data_check"]["overlaps"][0]["pairs"] == [[5, 50], [9, 51]]
    assert sentence in (result.folder / "report.html").read_text(encoding="utf-8")
    # the training items are not needed to leave out the same ones again
    resolved = runs.resolve("run", TASK, {"max_accuracy_drop_pp": 7})
    assert resolved.certificate is not None
    assert resolved.certificate["data"]["items"] == 998
    assert sentence in resolved.explanation


def test_where_every_holdout_item_was_trained_on_nothing_is_confirmed(runs: Runs) -> None:
    result = runs.start("run", replace(TASK, train=items_of(ramp(1000))))
    assert result.status is Status.UNDECIDED
    assert "0 holdout items are left to confirm with." in result.explanation


def test_random_transforms_are_refused_in_test_items_before_anything_is_written(runs: Runs) -> None:
    with pytest.raises(DataError, match=r"item \d+ is another one \(input 0 differs\) each time it is read") as caught:
        runs.start("run", Task(test=Noisy()))
    assert caught.value.where == "data: test"
    assert not (runs.root / "run").exists()


def test_random_transforms_are_allowed_in_training_items(runs: Runs) -> None:
    result = runs.start("run", replace(TASK, train=Noisy()))
    assert result.met
    assert any("whether test items are among them is not known" in sentence for sentence in result.explanation)


def test_the_gate_refuses_random_transforms(runs: Runs) -> None:
    result = runs.start("run", TASK)
    assert result.artifact is not None
    tools = runs.tools()
    with pytest.raises(DataError, match="is another one"):
        gate.check(result.artifact, result.baseline, result.profile, tools, Task(test=Noisy()))


def test_a_label_that_no_class_has_is_found_among_the_validation_items_too(runs: Runs) -> None:
    values, labels = items_of(ramp(300))
    with pytest.raises(DataError, match="label 7 is out of range"):
        runs.start("run", replace(TASK, val=(values, np.where(np.arange(300) == 250, 7, labels))))
