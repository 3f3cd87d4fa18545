from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.analysis.inspection import inspect_module
from autocompress.core.budget import Budget
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.probes import SMALLEST, Probes, PruningPath
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.errors import ExportError
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.run import Run
from autocompress.models import ModuleModel
from autocompress.run.record_store import open_record
from autocompress.runtimes import OnnxRuntime, onnxruntime
from autocompress.structure import candidates
from autocompress.structure.candidates import WORTH_ANOTHER, find_paths, nearly_fitted, time_training
from autocompress.structure.measuring import StructureMeasurer
from autocompress.system.progress import Deadline
from autocompress.system.workspace import Workspace
from autocompress.techniques import TECHNIQUES
from autocompress.techniques.channel_pruning import ChannelPruning
from autocompress.testing.fakes import FakeDevice, empty_record
from autocompress.testing.networks import labelled, labelled_source, small_model

LIMIT = 0.2
CUTS = tuple((Step("block_dropping", Stage.STRUCTURE, {"blocks": blocks}),) for blocks in ("a", "a b"))
FIRST_BLOCK = (Step("block_dropping", Stage.STRUCTURE, {"blocks": "layers.0"}),)
FINISH = (Element("int8_static", Stage.PRECISION, SettingSpace()),)
SEARCH_SPACE = SearchSpace(
    (Recipe("depth", Effort.CALIBRATION, FINISH, Reason("because.", "structure"), structures=CUTS, nested=True),), {}
)


def trial(size: float, plan: Plan | None = None) -> Trial:
    """A trial of the first cut whose file is so large, as a share."""
    standing = Standing.MET if size <= LIMIT else Standing.EXCEEDED
    finding = Finding(Budget("size_mb", LIMIT, relative=True), standing, size, size, size)
    outcome = Outcome.MEASURED if size <= LIMIT else Outcome.STOPPED
    first = next(SEARCH_SPACE.recipes[0].plans())
    stopped_by = "" if size <= LIMIT else "size_mb"
    return Trial(1, plan or first, outcome, verdict=Verdict((finding,)), stopped_by=stopped_by)


@pytest.mark.parametrize(
    ("sizes", "nearly"),
    [
        ([], False),
        ([0.99 * LIMIT * WORTH_ANOTHER], True),
        # nothing of this network will get there
        ([1.01 * LIMIT * WORTH_ANOTHER], False),
        ([5 * LIMIT, 1.1 * LIMIT], True),
        # met, but by so little that it would be lost to noise when all training is done
        ([0.99 * LIMIT], True),
        ([0.5 * LIMIT], False),
        ([1.1 * LIMIT, 0.5 * LIMIT], False),
    ],
)
def test_another_look_is_worth_it_when_nothing_fitted_and_something_came_close(
    sizes: list[float], nearly: bool
) -> None:
    assert nearly_fitted(SEARCH_SPACE, [trial(size) for size in sizes]) is nearly


def test_what_was_only_quantized_says_nothing_of_structure() -> None:
    quantized = Plan(finish=next(SEARCH_SPACE.recipes[0].plans()).finish)
    assert not nearly_fitted(SEARCH_SPACE, [trial(1.1 * LIMIT, quantized)])


# the search for paths, on a real network whose files are built; only the clock is scripted


def measurer_of(folder: Path, model: str, limit: float) -> tuple[StructureMeasurer, FakeDevice, Verdict]:
    """A run of a small model that has to get smaller, in float, and what the model as it is misses."""
    budget = Budget("size_mb", limit, relative=True)
    profile = Profile("scripted", budgets=(budget,))
    example = Example(labelled(model, 4)[0])
    task = Task(train=labelled_source(model, 64))
    workspace, device = Workspace(folder), FakeDevice()
    workspace.open(resume=True)
    workspace.journal.write_bytes(empty_record())
    tools = Tools(OnnxRuntime(), device, [technique() for technique in TECHNIQUES])
    builder = Builder(ModuleModel(small_model(model)), example, task, profile, tools, workspace)
    measurer = Measurer(device, profile, task, {"": example}, builder.baseline)
    record, deadline = open_record(workspace.journal), Deadline.start(None)
    run = Run(profile, task, example, tools, workspace, builder, measurer, record, deadline)
    split = task.calibration
    assert split is not None
    facts = inspect_module(builder.module, example)
    verdict = Verdict((Finding(budget, Standing.EXCEEDED, 1.0, 1.0, 1.0),))
    return StructureMeasurer(run, facts, (), split, (1.0, 1.0)), device, verdict


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[StructureMeasurer, Probes]:
    """An encoder that has to come to half of its size, and what was found."""
    measurer, _, verdict = measurer_of(tmp_path_factory.mktemp("searched"), "encoder", 0.5)
    return measurer, find_paths(measurer, Probes(), verdict, None)


def test_what_each_technique_can_take_is_kept_with_what_it_leaves_alone(
    searched: tuple[StructureMeasurer, Probes],
) -> None:
    _, found = searched
    assert {name: str(parts) for name, parts in found.parts.items()} == {
        "block_dropping": "4 blocks can be left out",
        "channel_pruning": "5 groups of channels can be cut",
    }
    assert found.parts["channel_pruning"].left_alone == {"head": "its channels are the model's output."}
    assert found.channel_multiple == 4
    assert found.smallest is not None
    assert found.smallest.size < 0.3
    assert Probes.from_json(found.to_json()) == found


def test_there_is_a_path_by_each_technique_and_one_by_all_of_them_together(
    searched: tuple[StructureMeasurer, Probes],
) -> None:
    _, found = searched
    assert [path.name for path in found.paths] == ["depth", "width", "depth and width"]
    depth, width, both = ([structure.steps for structure in path.structures] for path in found.paths)
    assert {step.technique for steps in depth for step in steps} == {"block_dropping"}
    assert {step.technique for steps in width for step in steps} == {"channel_pruning"}
    # the best of both may well be that of one of them
    assert {step.technique for steps in both for step in steps} <= {"block_dropping", "channel_pruning"}
    for path in found.paths:
        sizes = [structure.size for structure in path.structures]
        assert sizes == sorted(set(sizes), reverse=True)
        # a little beyond what is asked
        assert sizes[-1] < 0.5
        assert all(structure.divergence is not None for structure in path.structures)


def test_what_is_predicted_of_a_path_is_what_its_files_come_to(searched: tuple[StructureMeasurer, Probes]) -> None:
    measurer, found = searched
    run = measurer.run
    for path in found.paths:
        last = path.structures[-1]
        made = run.builder.build(Plan((last.steps,)))
        assert last.size == pytest.approx(made.size_bytes / run.baseline.size_bytes, rel=0.1)


def test_where_not_even_the_smallest_structure_keeps_the_budgets_it_is_the_only_one(tmp_path: Path) -> None:
    measurer, _, verdict = measurer_of(tmp_path, "encoder", 0.02)
    found = find_paths(measurer, Probes(), verdict, None)
    assert found.smallest is not None
    assert found.paths == (PruningPath(SMALLEST, (found.smallest,)),)
    assert [step.technique for step in found.smallest.steps] == ["block_dropping", "channel_pruning"]
    assert found.smallest.size > 0.02


def test_without_time_nothing_is_measured_and_what_saves_most_goes_first(tmp_path: Path) -> None:
    measurer, device, verdict = measurer_of(tmp_path, "resnet", 0.5)
    found = find_paths(measurer, Probes(), verdict, 0.0)
    assert device.measured == []
    assert found.smallest is None
    assert found.paths
    (first, *_) = found.paths[0].structures
    # the widest blocks hold most weights
    assert first.steps[0].settings["blocks"] in ("blocks.3", "blocks.4")


def test_where_nothing_can_go_there_are_no_paths_and_the_reasons_are_kept(tmp_path: Path) -> None:
    measurer, _, verdict = measurer_of(tmp_path, "lstm", 0.5)
    found = find_paths(measurer, Probes(), verdict, None)
    assert found.paths == ()
    assert not any(parts.names for parts in found.parts.values())
    assert found.parts["channel_pruning"].left_alone


# what fails


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*given: object) -> None:
        raise error

    return fail


def test_a_technique_that_fails_on_the_network_has_no_moves_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer, _, verdict = measurer_of(tmp_path, "encoder", 0.5)
    monkeypatch.setattr(ChannelPruning, "moves", raising(ZeroDivisionError("no groups")))
    probes = find_paths(measurer, Probes(), verdict, 20.0)
    assert "ZeroDivisionError: no groups" in probes.parts_of("channel_pruning").left_alone["all of them"]
    assert [path.name for path in probes.paths] == ["depth"]
    assert "no groups" in (tmp_path / "failures.log").read_text(encoding="utf-8")


def test_training_is_timed_on_the_first_structure_that_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer, _, _ = measurer_of(tmp_path, "encoder", 0.5)
    broken = (Step("block_dropping", Stage.STRUCTURE, {"blocks": "no.such.block"}),)
    fits = FIRST_BLOCK
    training = time_training(measurer, [broken, fits], 4)
    assert training is not None
    assert training.brackets[-1].structures == (fits,)
    assert "no.such.block" in (tmp_path / "failures.log").read_text(encoding="utf-8")
    monkeypatch.setattr(candidates, "measure_training", raising(torch.OutOfMemoryError("tried to allocate 9 GiB")))
    assert time_training(measurer, [fits], 4) is None


def test_an_export_that_turns_out_wrong_is_not_found_by_the_next_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer, _, _ = measurer_of(tmp_path, "encoder", 0.5)
    # the file has been written when its outputs are compared
    monkeypatch.setattr(onnxruntime, "_check_parity", raising(ExportError("differs after export.", where="model")))
    for _ in range(2):
        with pytest.raises(ExportError, match="differs"):
            measurer.run.builder.exported((FIRST_BLOCK,))
