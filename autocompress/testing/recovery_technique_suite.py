"""Contract suite for techniques that win accuracy back by training.

Inherit `RecoveryTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.core.facts import Facts, Family
from autocompress.core.plan import Effort, Setting, Stage, Step
from autocompress.core.probes import Probes, PruningPath, Structure
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import Context, ModelTechnique
from autocompress.core.training_probe import Bracket, TrainingProbe
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.errors import TechniqueError
from autocompress.testing.model_technique_suite import ModelTechniqueSuite, fingerprint
from autocompress.testing.networks import labelled, labelled_source, small_model

ITEMS, JUDGED = 96, 32
# factor of the teacher's weights in the module that is trained
FADED = 0.7
FACTS = Facts(Family.CNN, "handmade", 0, 0, 0, 0, {}, ())
ANY = Profile("any")
DROPPED = (Step("dropping", Stage.STRUCTURE, {"blocks": "a"}),)
TRAINED = TrainingProbe(16, 0.05, "sgd", 0.1, brackets=(Bracket((DROPPED,), (40,), (1,)),))


class RecoveryTechniqueSuite(ModelTechniqueSuite):
    """Tests of the contract of `ModelTechnique` for techniques at the stage of recovery.

    Training is real, of few steps. The settings of `models` must suffice for a network with weaker weights than its
    teacher's to come closer to it.
    """

    @staticmethod
    def context_for(model: str, folder: Path) -> Context:
        """A context with random training and validation items, and the original as teacher."""
        train, val = labelled_source(model, ITEMS), labelled_source(model, JUDGED, seed=1)
        task, example = Task(train=train, val=val), Example(labelled(model, 4)[0])
        return Context(task, example, whole("train", train), folder, small_model(model))

    @staticmethod
    def module_for(model: str) -> nn.Module:
        """The original with its weights scaled down."""
        module = small_model(model)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(FADED)
        return module

    @staticmethod
    def distance(module: nn.Module, model: str) -> float:
        """The distance of a module's outputs from the original's, on items that it is not trained on."""
        items = Example(labelled(model, 64, seed=2)[0])
        pairs = zip(call(module, items).values(), call(small_model(model), items).values(), strict=True)
        return sum(float((found - wanted).square().mean() / wanted.square().mean()) for found, wanted in pairs)

    # declared attributes

    def test_it_trains_and_decides_nothing_of_size_and_latency(self) -> None:
        assert self.technique.stage is Stage.RECOVERY
        assert self.technique.effort is Effort.TRAINING
        assert not any(choice.structural for choice in self.technique.choices)

    def test_several_rounds_are_described_as_more_training_than_one(self, model: str) -> None:
        settings = self.models[model]
        assert self.technique().describe([settings]) != self.technique().describe([settings, settings])

    # results of apply

    def test_what_is_trained_comes_closer_to_the_original(self, model: str, tmp_path: Path) -> None:
        before = self.distance(self.module_for(model), model)
        assert self.distance(self.apply(model, tmp_path), model) < 0.8 * before

    def test_the_network_keeps_its_shape(self, model: str, tmp_path: Path) -> None:
        result, before = self.apply(model, tmp_path), self.module_for(model)
        shapes = [{name: tensor.shape for name, tensor in one.state_dict().items()} for one in (result, before)]
        assert shapes[0] == shapes[1]
        assert fingerprint(result) != fingerprint(before)
        assert not any(part.training for part in result.modules())
        assert all(bool(torch.isfinite(tensor).all()) for tensor in result.state_dict().values())

    @pytest.mark.parametrize("shared", [False, True])
    def test_the_teacher_is_left_as_it_is(self, model: str, tmp_path: Path, *, shared: bool) -> None:
        context = self.context_for(model, tmp_path)
        teacher = context.teacher
        assert teacher is not None
        before, strides = fingerprint(teacher), [parameter.stride() for parameter in teacher.parameters()]
        # without a structure step before it, the trained module shares the teacher's weights
        student = with_shared_weights(teacher) if shared else self.module_for(model)
        result = self.technique().apply(student, self.models[model], context)
        assert fingerprint(teacher) == before
        assert [parameter.stride() for parameter in teacher.parameters()] == strides
        assert not any(part.training or part._forward_hooks for part in teacher.modules())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
        mine = {id(tensor) for tensor in (*result.parameters(), *result.buffers())}
        assert not mine & {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}

    def test_random_numbers_that_were_drawn_before_change_nothing_and_go_on_as_they_were(
        self, model: str, tmp_path: Path
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            first = fingerprint(self.apply(model, tmp_path))
            torch.manual_seed(2)
            before = torch.random.get_rng_state()
            assert fingerprint(self.apply(model, tmp_path)) == first
            assert torch.equal(torch.random.get_rng_state(), before)

    def test_files_that_all_plans_share_change_nothing(self, model: str, tmp_path: Path) -> None:
        alone = fingerprint(self.apply(model, tmp_path))
        (tmp_path / "shared").mkdir()
        for _ in range(2):
            context = replace(self.context_for(model, tmp_path), shared=tmp_path / "shared")
            made = self.technique().apply(self.module_for(model), self.models[model], context)
            assert fingerprint(made) == alone

    # requirements

    def test_without_training_data_or_a_teacher_it_is_a_technique_error(self, model: str, tmp_path: Path) -> None:
        whole_context = self.context_for(model, tmp_path)
        assert whole_context.task is not None
        for lacking in (
            replace(whole_context, task=None),
            replace(whole_context, task=replace(whole_context.task, train=None)),
            replace(whole_context, teacher=None),
        ):
            with pytest.raises(TechniqueError, match="needs training data"):
                self.technique().apply(self.module_for(model), self.models[model], lacking)

    def test_items_that_select_may_be_missing(self, model: str, tmp_path: Path) -> None:
        context = self.context_for(model, tmp_path)
        assert context.task is not None
        without = replace(context, task=replace(context.task, val=None))
        result = self.technique().apply(self.module_for(model), self.models[model], without)
        assert self.distance(result, model) < self.distance(self.module_for(model), model)

    # proposed settings

    def test_it_proposes_settings_that_can_be_applied_once_training_was_timed(self, model: str, tmp_path: Path) -> None:
        grid = list(self.technique().space(FACTS, Probes(training=TRAINED), ANY).grid())
        assert grid
        for settings in grid:
            brief: dict[str, Setting] = {name: 2 if name == "steps" else value for name, value in settings.items()}
            assert brief.keys() <= {choice.name for choice in self.technique.choices}
            self.technique().apply(self.module_for(model), brief, self.context_for(model, tmp_path))

    def test_it_is_refused_until_something_fits_that_can_be_trained(self) -> None:
        technique: ModelTechnique = self.technique()
        path = PruningPath("depth", (Structure(DROPPED, 0.1, 0.5, 0.5),))
        for probes in (Probes(), Probes(paths=(path,))):
            reason = technique.refuses(FACTS, probes, ANY)
            assert reason is not None
            assert reason.sentence.endswith(".")
            assert reason.rule
        assert technique.refuses(FACTS, Probes(paths=(path,), training=TRAINED), ANY) is None
