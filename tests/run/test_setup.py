import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocompress.core.aggregate import first_output
from autocompress.core.data_check import DataCheck, Overlap
from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.profile import load_profile
from autocompress.core.record import Record
from autocompress.core.task import Task
from autocompress.data.repeated_items import examine
from autocompress.errors import ModelError, RecordError
from autocompress.evaluation.run import Run
from autocompress.run.setup import identity_of, inputs_of, open_run, record_in
from autocompress.run.stages import find_facts
from autocompress.system import workers as worker
from autocompress.system.workers import Worker
from autocompress.testing.fakes import Scripted, Stand, Variant, items_of, ramp, task_of
from autocompress.testing.several_outputs import IMAGE, Detector

TASK = task_of(ramp(40), ramp(100))
CHECK = examine(TASK)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in a folder with its baseline and without a record."""
    made = Stand(tmp_path, [Scripted("scripted", {"one": Variant()})], {"size_mb": "0.7x"}, TASK)
    made.run.builder.export_baseline(tmp_path)
    made.record.close()
    made.run.workspace.journal.unlink()
    return made.run


def opened(run: Run, *, resume: bool, check: DataCheck = CHECK) -> Record:
    """The run's record as `open_run` opens it."""
    identity = identity_of(run.profile, run.task, run.baseline, run.tools, run.example)
    inputs = inputs_of(run.profile, run.task, run.builder, run.tools, {})
    return record_in(run.workspace, identity, inputs, check, resume=resume)


def test_a_new_run_goes_on_counting_the_looks_at_the_same_data(run: Run) -> None:
    first = opened(run, resume=False)
    first.spend_look({"what": "a"})
    first.close()
    second = opened(run, resume=False)
    assert second.spend_look({"what": "b"}) == 2
    assert not list(run.workspace.root.glob(".journal*"))


def test_looks_are_counted_on_when_the_model_was_trained_on_other_items(run: Run) -> None:
    first = opened(run, resume=False)
    first.spend_look({"what": "a"})
    first.close()
    more = replace(TASK, train=items_of(ramp(50)))
    run.task = more
    assert (
        identity_of(run.profile, more, run.baseline, run.tools, run.example)["data"]
        != identity_of(run.profile, TASK, run.baseline, run.tools, run.example)["data"]
    )
    assert len(opened(run, resume=False, check=examine(more)).looks) == 1


def test_looks_at_other_items_do_not_count(run: Run) -> None:
    first = opened(run, resume=False)
    first.spend_look({"what": "a"})
    first.close()
    assert len(opened(run, resume=False, check=examine(task_of(ramp(40), ramp(101)))).looks) == 0


def test_a_resumed_run_confirms_on_the_items_of_the_first(run: Run) -> None:
    found = replace(
        CHECK, overlaps=(Overlap("holdout", "test", "train", "train", ((5, 17),), 0),), train=9, train_read=3
    )
    opened(run, resume=False, check=found).close()
    # this one could read more training items, and found no repeated one
    assert opened(run, resume=True).data_check == found


@pytest.mark.parametrize("resume", [True, False])
def test_looks_are_counted_on_after_a_start_that_was_killed(run: Run, resume: bool) -> None:
    first = opened(run, resume=False)
    first.spend_look({"what": "a"})
    first.close()
    # killed when the old journal was moved aside and the new one not there yet
    run.workspace.open(resume=False)
    assert not run.workspace.journal.exists()
    assert len(opened(run, resume=resume).looks) == 1


def test_a_run_that_is_at_work_is_joined_but_not_replaced(run: Run) -> None:
    parent = Worker(Worker.me().host, os.getppid(), worker._state(os.getppid())[1])
    first = opened(run, resume=False)
    first.notes.amend("owners", lambda _: {parent.key: parent.to_json()})
    with pytest.raises(RecordError, match="another run is at work"):
        opened(run, resume=False)
    joined = opened(run, resume=True)
    assert set(joined.owners) == {parent.key, Worker.me().key}


def test_the_owner_of_a_run_that_was_killed_is_forgotten(run: Run) -> None:
    first = opened(run, resume=False)
    dead = Worker(Worker.me().host, os.getppid(), "1")
    first.notes.amend("owners", lambda _: {dead.key: dead.to_json()})
    joined = opened(run, resume=True)
    assert set(joined.owners) == {Worker.me().key}
    opened(run, resume=False)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"score": lambda outputs, targets: (outputs.argmax(1) == targets) * 0.5}, "score"),
        ({"score": "top5"}, "score"),
        ({"loss": lambda outputs, targets: outputs.sum()}, "loss"),
        ({"augment": lambda images: images + 1}, "augmentation"),
    ],
)
def test_a_run_is_not_resumed_with_another_score_loss_or_augmentation(
    run: Run, changed: dict[str, Any], part: str
) -> None:
    opened(run, resume=False).close()
    assert run.task is not None
    other = replace(run, task=replace(run.task, **changed))
    with pytest.raises(RecordError, match=f"begun with other inputs: {part} changed"):
        opened(other, resume=True)
    opened(run, resume=True)


def test_a_run_is_not_resumed_with_other_kinds_of_outputs(run: Run) -> None:
    run.example = replace(run.example, kinds={"output": OutputFact(OutputKind.LOGITS, 1, "by its name")})
    opened(run, resume=False).close()
    other = replace(run, example=replace(run.example, kinds={"output": OutputFact(OutputKind.VALUES)}))
    with pytest.raises(RecordError, match="begun with other inputs: output kinds changed"):
        opened(other, resume=True)
    # what they were recognised by does not matter
    declared = {"output": OutputFact(OutputKind.LOGITS, 1, "declared")}
    opened(replace(run, example=replace(run.example, kinds=declared)), resume=True)


@pytest.mark.parametrize("part", ["machine", "versions"])
def test_a_run_is_not_resumed_on_another_machine_or_with_other_versions(run: Run, part: str) -> None:
    first = opened(run, resume=False)
    first.notes.amend("identity", lambda identity: {**identity, part: "another"})
    first.close()
    with pytest.raises(RecordError, match=f"begun with other inputs: {part} changed"):
        opened(run, resume=True)


def test_a_run_of_another_version_is_not_resumed(run: Run) -> None:
    first = opened(run, resume=False)
    first.notes.amend("schema", lambda _: 2)
    first.close()
    with pytest.raises(RecordError, match="has schema 2, this version reads 3"):
        opened(run, resume=True)


# outputs and precision


def detector(tmp_path: Path, module: torch.nn.Module, **given: Any) -> Run:
    images = np.random.default_rng(0).standard_normal((40, *IMAGE)).astype(np.float32)
    task = Task(
        test=(images, {"kinds": np.zeros(40, np.int64)}), score=lambda outputs, _: first_output(outputs)[:, 0, 0]
    )
    return open_run(module, load_profile("local"), task, out=tmp_path / "run", **given)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [((), ["logits", "pred_boxes"]), (("pred_boxes", "logits"), ["pred_boxes", "logits"]), ("logits", ["logits"])],
)
def test_all_outputs_ship_or_those_that_were_chosen(tmp_path: Path, outputs: Any, names: list[str]) -> None:
    run = detector(tmp_path, Detector().eval(), outputs=outputs)
    assert [spec.name for spec in run.baseline.outputs] == names
    run.close()


def test_an_output_that_is_not_there_is_an_error_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no output 'boxes'\.") as caught:
        detector(tmp_path, Detector().eval(), outputs=("boxes",))
    assert caught.value.hint == "It has logits, pred_boxes."
    assert not (tmp_path / "run").exists()


def test_a_half_precision_model_is_compressed_from_float32(tmp_path: Path) -> None:
    told: list[str] = []
    run = detector(tmp_path, Detector().eval().half(), progress=lambda event: told.append(event.sentence))
    assert {spec.dtype for spec in (*run.baseline.inputs, *run.baseline.outputs)} == {"float32"}
    assert find_facts(run).preparation[0].startswith("the model is in float16: its float32 copy is compressed")
    assert find_facts(run).preparation[0] in told
    measurement = run.measurer.score(run.baseline, run.task.validation)
    assert len(measurement.readings["score"].samples) == len(run.task.validation)
    run.close()


def counted(part: torch.nn.Module, inputs: Any) -> None:
    part.calls += 1


def test_a_wrapped_module_in_training_mode_is_said_to_be_unwrapped_and_left_as_it_was(tmp_path: Path) -> None:
    told: list[str] = []
    inner = Detector().train()
    inner.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    inner.register_forward_pre_hook(counted)
    run = detector(tmp_path, torch.nn.DataParallel(inner), progress=lambda event: told.append(event.sentence))
    facts = find_facts(run)
    assert facts.preparation[0] == "the model is taken out of DataParallel: layers are named as inside it"
    assert facts.preparation[1].startswith("forward() changes calls in evaluation mode too")
    assert set(facts.preparation) <= set(told)
    assert not any(layer.name.startswith("module.") for layer in facts.layers)
    assert all(part.training for part in inner.modules())
    assert int(inner.calls) == 0
    run.close()


class BoundToFour(torch.nn.Module):
    """Takes four items at a time; the second output has them on its second axis."""

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.reshape(4, 6)
        return 2.0 * values, (values + 1.0)[None]


def test_items_that_only_fill_a_fixed_batch_up_are_not_scored(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((11, 6)).astype(np.float32)
    task = Task(
        val=(values[:4], values[:4]), test=(values[4:], values[4:]), score=lambda outputs, _: outputs[1][0, :, 0]
    )
    run = open_run(BoundToFour(), load_profile("local"), task, inputs=values[:4], out=tmp_path / "run")
    assert run.baseline.fixed_batch == 4
    assert run.task is not None
    found = run.measurer.score(run.baseline, run.task.holdout).readings["score"].samples
    np.testing.assert_allclose(found, values[4:, 0] + 1.0, rtol=1e-5)
    run.close()
