"""What is tried after a rung of training where int8 costs much of what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.plan import Effort, Setting, Stage, Step
from autocompress.core.probes import Probe, Probes, PruningPath, Structure
from autocompress.core.profile import Profile, Protocol
from autocompress.core.search_space import first_options
from autocompress.core.task import Task
from autocompress.core.training_probe import Bracket, TrainingProbe
from autocompress.core.trial import Trial
from autocompress.evaluation.run import Run
from autocompress.run.quantized_recovery import with_quantized_recovery
from autocompress.run.search import evaluate
from autocompress.run.setup import declared, open_run
from autocompress.run.stages import Planned, find_facts, measure_baseline, plan_space
from autocompress.techniques import Int8Static

NARROW = Step(
    "channel_pruning",
    Stage.STRUCTURE,
    {"groups": "", "ratio": 0.03, "scope": "uniform", "importance": "group_magnitude", "multiple": 1},
)
INT8: dict[str, Setting] = {**first_options(Int8Static.choices), "samples": 32}
# the largest of its channels has so many times the values of the smallest
SPREAD = 1e5


class Uneven(nn.Module):
    """Two convolutions with channels of very different ranges between them; takes (n, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)
        scale = torch.logspace(0, float(torch.log10(torch.tensor(SPREAD))), 32)
        with torch.no_grad():
            self.first.weight *= scale[:, None, None, None]
            self.first.bias *= scale
            self.second.weight /= scale[:, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(functional.relu(self.second(functional.relu(self.first(images)))).mean((2, 3)))


def own_answers(model: nn.Module, items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of different colours, whose labels are the model's own answers: float is always right."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(items, 3, 16, 16, generator=draw) + 4 * torch.randn(items, 3, 1, 1, generator=draw)
    with torch.inference_mode():
        return images.numpy(), model(images).argmax(1).numpy()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    model = Uneven().eval()
    with torch.no_grad():
        # no answer is more frequent than others by far
        images = torch.from_numpy(own_answers(model, 96, 0)[0])
        model.head.bias -= model(images).mean(0)
    task = Task(train=own_answers(model, 96, 1), val=own_answers(model, 96, 2), test=own_answers(model, 96, 3))
    profile = Profile("own", protocol=Protocol(max_seconds=0.5))
    target = declared(profile, {"size_mb": "0.9x", "max_accuracy_drop_pp": 1.0})
    opened = open_run(model, target, task, out=tmp_path_factory.mktemp("run"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def planned(run: Run) -> Planned:
    """As after a first rung of two steps of training."""
    structure = (NARROW,)
    training = TrainingProbe(16, 1e-12, "sgd", 0.1, brackets=(Bracket((structure,), (2,), (1,)),))
    probes = Probes(
        (Probe("int8_static", INT8, 0.5, 0.49, 0.51, 0.3, whole=True),),
        paths=(PruningPath("width", (Structure(structure, 0.1, 0.5, 0.25),)),),
        training=training,
    )
    run.record.probes = probes
    run.record.structure_attempts = 1
    return plan_space(run, measure_baseline(run), find_facts(run), probes)


@pytest.fixture(scope="module")
def trained(run: Run, planned: Planned) -> Trial:
    """The trial of the rung, in the record."""
    recipe = next(one for one in planned.search_space.recipes if one.rounds)
    plan = next(recipe.plans())
    with run.record.claim(plan) as number:
        assert number is not None
        trial = evaluate(run, plan, number)
        run.record.finish(trial)
    return trial


def test_what_int8_costs_a_trained_structure_is_measured_and_won_back(
    run: Run, planned: Planned, trained: Trial
) -> None:
    assert "score" in trial_values(trained), trained.reason
    found = with_quantized_recovery(run, planned, None)
    assert found is not None
    assert found.probes.training is not None
    (loss,) = found.probes.training.losses
    assert loss.lost > 20
    assert loss.sensitivity is not None
    assert {layer.name for layer in loss.sensitivity.layers} == {"first", "second", "head"}
    assert found.probes.step_seconds["quantization_aware_training"] > 0
    assert Probes.from_json(found.probes.to_json()) == found.probes == run.record.probes
    refined = [recipe for recipe in found.search_space.recipes if recipe.refines]
    assert refined[0].finish[0].technique == "equalization"
    assert refined[-1].finish[-1].technique == "quantization_aware_training"
    assert all(recipe.effort is Effort.TRAINING for recipe in refined)
    first = next(refined[0].plans())
    assert (first.rounds, first.finish[-1:]) == (trained.plan.rounds, trained.plan.finish)
    prepared = evaluate(run, first, 9)
    assert trial_values(prepared)["score"] > trial_values(trained)["score"] + 0.2
    # it is asked once for each rung, also by a worker that comes later
    assert with_quantized_recovery(run, found, None) is None
    later = with_quantized_recovery(run, planned, None)
    assert later is not None
    assert later.probes == found.probes


def test_without_a_rung_there_is_nothing_to_ask(run: Run, planned: Planned) -> None:
    known = run.record.probes
    run.record.probes = before = replace(planned.probes, training=None)
    assert with_quantized_recovery(run, replace(planned, probes=before), None) is None
    run.record.probes = known


def test_a_trial_that_reached_its_budgets_is_not_asked(run: Run, planned: Planned, trained: Trial) -> None:
    known = run.record.probes
    run.record.probes = planned.probes
    assert with_quantized_recovery(run, planned, None, reached=[trained.plan]) is None
    assert run.record.probes == planned.probes
    run.record.probes = known


def trial_values(trial: Trial) -> dict[str, float]:
    return {name: reading.value for name, reading in trial.measurement.readings.items()}
