"""Contract suite for techniques that remove parts of a network, and for their moves.

Inherit `StructureTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.facts import Facts, LayerFact
from autocompress.core.moves import Move, Moves, MoveSpace, Network
from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.core.probes import Parts, Probes, PruningPath, Structure
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Reason
from autocompress.core.technique import Context, StructureTechnique
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.errors import TechniqueError
from autocompress.structure.space import PruningSpace
from autocompress.testing.model_technique_suite import ModelTechniqueSuite, fingerprint
from autocompress.testing.networks import labelled, small_model

# more moves than any small model allows
MOST_MOVES = 50
# tolerance in parameters: a layer that two moves narrow counts as keeping the product of both shares, bias included
TOGETHER = 0.02
ANY = Profile("any")


def network_of(module: nn.Module, example: Example, multiple: int = 4, **more: Any) -> Network:
    """The `Network` of a module, as structure techniques get it."""
    return Network(
        module,
        example,
        inspect_module(module, example),
        lambda other: inspect_module(other, example),
        multiple,
        **more,
    )


def network(model: str, **more: Any) -> Network:
    """The `Network` of a small model, always with the same weights."""
    return network_of(small_model(model), Example(labelled(model, 4)[0]), **more)


@cache
def looked_at(technique: type[StructureTechnique], model: str) -> tuple[Network, MoveSpace]:
    """A small model and the technique's moves in it, cached. Tests leave both as they are."""
    found = network(model)
    return found, technique().moves(found)


def walk(space: MoveSpace, end: int = 0) -> list[Moves]:
    """The moves taken one after the other, always the first option, or the last with `end` -1."""
    found = [Moves()]
    while options := list(space.options(found[-1], ())):
        found.append(found[-1].plus(options[end]))
        assert len(found) <= MOST_MOVES, "options do not come to an end"
    return found[1:]


def moves_offered(space: MoveSpace) -> list[Move]:
    """Every move that is an option at some point of the walk."""
    taken = [Moves(), *walk(space), *walk(space, -1)]
    return list(dict.fromkeys(move for moves in taken for move in space.options(moves, ())))


def work(layers: Iterable[LayerFact]) -> dict[str, tuple[int, int]]:
    """MACs and parameters of layers, by name."""
    return {layer.name: (layer.macs, layer.parameters) for layer in layers}


def total(facts: Iterable[LayerFact]) -> tuple[int, int]:
    """Total MACs and parameters of all layers."""
    found = list(facts)
    return sum(layer.macs for layer in found), sum(layer.parameters for layer in found)


class StructureTechniqueSuite(ModelTechniqueSuite):
    """Tests of the contract of `StructureTechnique` and of its `MoveSpace`."""

    technique: ClassVar[type[StructureTechnique]]

    def looked_at(self, model: str) -> tuple[Network, MoveSpace]:
        return looked_at(self.technique, model)

    def left(self, model: str, moves: Moves) -> list[LayerFact]:
        """The layers that moves leave, according to the move space."""
        network, space = self.looked_at(model)
        return PruningSpace(network, {self.technique.name: space}).layers(moves)

    def built(
        self, model: str, steps: Iterable[Step], folder: Path, ignore: tuple[str, ...] = ()
    ) -> tuple[nn.Module, Facts]:
        """The module that the technique makes with these steps, without any data, and its facts."""
        network, _ = self.looked_at(model)
        module = with_shared_weights(network.module)
        for step in steps:
            context = Context(None, network.example, None, folder, ignore=ignore)
            module = self.technique().apply(module, step.settings, context)
        return module, network.inspect(module)

    # declared attributes

    def test_it_says_what_it_reduces_and_what_its_parts_are(self) -> None:
        assert self.technique.stage is Stage.STRUCTURE
        assert self.technique.effort is not Effort.TRAINING
        assert self.technique.reduces.isidentifier()
        assert self.technique.parts
        assert any(choice.structural for choice in self.technique.choices)
        assert all(choice.describes for choice in self.technique.choices)

    def test_the_result_is_smaller(self, model: str, tmp_path: Path) -> None:
        result = self.apply(model, tmp_path)
        assert sum(p.numel() for p in result.parameters()) < sum(p.numel() for p in small_model(model).parameters())

    # parts that can be removed

    def test_what_can_go_is_named_once_and_what_cannot_has_its_reason(self, model: str) -> None:
        _, space = self.looked_at(model)
        assert space.names
        assert len(set(space.names)) == len(space.names)
        assert not set(space.names) & space.left_alone.keys()
        assert all(reason.endswith(".") for reason in space.left_alone.values())

    def test_looking_for_what_can_go_leaves_the_network_as_it_is(self, model: str) -> None:
        given = network(model)
        before, parts = fingerprint(given.module), dict(given.module.named_modules())
        space = self.technique().moves(given)
        moves_offered(space)
        space.smallest()
        list(space.samples())
        assert fingerprint(given.module) == before
        assert dict(given.module.named_modules()) == parts
        assert not any(part.training or part._forward_hooks for part in given.module.modules())
        assert all(parameter.requires_grad for parameter in given.module.parameters())

    @pytest.mark.parametrize("place", [0, -1])
    def test_what_is_to_be_ignored_stays_whole(self, model: str, place: int, tmp_path: Path) -> None:
        before, space = self.looked_at(model)
        name = space.names[place]
        ignoring = self.technique().moves(network(model, ignore=(name,)))
        assert name not in ignoring.names
        _, facts = self.built(model, ignoring.steps(ignoring.smallest(), ()), tmp_path, (name,))
        inside = [layer.name for layer in before.facts.layers if f"{layer.name}.".startswith(f"{name}.")]
        assert inside
        # inputs of its layers may get narrower, their outputs may not
        given = [{layer.name: layer.output_shape for layer in one.layers} for one in (before.facts, facts)]
        assert [given[1][layer] for layer in inside] == [given[0][layer] for layer in inside]

    def test_a_step_with_what_is_to_be_ignored_cannot_be_applied(self, model: str, tmp_path: Path) -> None:
        _, space = self.looked_at(model)
        steps = space.steps(walk(space)[-1], ())
        named = {part for step in steps for value in step.settings.values() for part in str(value).split()}
        name = next(name for name in space.names if name in named)
        with pytest.raises(TechniqueError, match=name):
            self.built(model, steps, tmp_path, (name,))

    def test_out_of_time_there_are_no_more_moves_than_with_time(self, model: str) -> None:
        _, patient = self.looked_at(model)
        hurried = self.technique().moves(network(model, out_of_time=lambda: True))
        assert set(moves_offered(hurried)) <= set(moves_offered(patient))
        assert not set(hurried.names) & hurried.left_alone.keys()

    # moves

    @pytest.mark.parametrize("end", [0, -1])
    def test_options_go_on_from_what_is_taken_and_come_to_an_end(self, model: str, end: int) -> None:
        _, space = self.looked_at(model)
        path = [Moves(), *walk(space, end)]
        assert len(path) > 1
        for taken in path:
            options = list(space.options(taken, ()))
            assert len({(move.technique, move.target) for move in options}) == len(options)
            for move in options:
                assert move.technique == self.technique.name
                assert taken.level(move.target) < move.level <= 1
                assert space.kept(move)

    def test_each_move_can_be_built_and_leaves_of_each_layer_what_it_says(self, model: str, tmp_path: Path) -> None:
        network, space = self.looked_at(model)
        for move in moves_offered(space):
            alone = Moves.of([move])
            _, facts = self.built(model, space.steps(alone, ()), tmp_path)
            assert work(self.left(model, alone)) == work(facts.layers), move
            assert facts.macs < network.facts.macs, move

    @pytest.mark.parametrize("end", [0, -1])
    def test_moves_together_leave_about_what_each_of_them_says(self, model: str, end: int, tmp_path: Path) -> None:
        _, space = self.looked_at(model)
        path = walk(space, end)
        for taken in (path[len(path) // 2], path[-1]):
            predicted = self.left(model, taken)
            _, facts = self.built(model, space.steps(taken, ()), tmp_path)
            assert [layer.name for layer in predicted] == [layer.name for layer in facts.layers]
            assert total(predicted) == pytest.approx(total(facts.layers), rel=TOGETHER)

    def test_a_move_takes_the_place_of_an_earlier_one_on_its_target_and_leaves_less(self, model: str) -> None:
        _, space = self.looked_at(model)
        levels: dict[str, list[Move]] = {}
        for move in moves_offered(space):
            levels.setdefault(move.target, []).append(move)
        for moves in levels.values():
            ascending = sorted(moves, key=lambda move: move.level)
            assert Moves.of(ascending) == Moves.of([ascending[-1]])
            left = [total(self.left(model, Moves.of([move]))) for move in ascending]
            assert left == sorted(set(left), reverse=True)

    def test_the_same_moves_in_any_order_are_the_same_steps(self, model: str) -> None:
        _, space = self.looked_at(model)
        taken = walk(space)[-1]
        steps = space.steps(taken, ())
        assert steps
        assert steps == space.steps(Moves.of(reversed(taken.taken)), ())
        assert steps == self.technique().moves(network(model)).steps(taken, ())
        assert all((step.technique, step.stage) == (self.technique.name, Stage.STRUCTURE) for step in steps)
        plan = Plan((steps,))
        assert Plan.from_json(plan.to_json()) == plan

    def test_no_moves_are_no_steps_and_leave_everything(self, model: str) -> None:
        network, space = self.looked_at(model)
        assert space.steps(Moves(), ()) == ()
        assert self.left(model, Moves()) == list(network.facts.layers)

    # the network with moves made

    @pytest.mark.parametrize("end", [0, -1])
    def test_what_is_looked_at_is_what_is_built(self, model: str, end: int, tmp_path: Path) -> None:
        network, space = self.looked_at(model)
        before = call(network.module, network.example)
        path = walk(space, end)
        # one of the moves again, and the first once more: nothing of an earlier application may remain
        for taken in (path[0], path[-1], path[-1], path[0]):
            built, facts = self.built(model, space.steps(taken, ()), tmp_path)
            with space.applied(network.module, taken) as looked:
                found = call(looked, network.example)
                assert sum(p.numel() for p in looked.parameters()) == facts.parameters
            wanted = call(built, network.example)
            assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
            assert not all(torch.equal(found[name], before[name]) for name in before)

    def test_a_network_that_was_looked_at_is_as_it_was(self, model: str) -> None:
        network, space = self.looked_at(model)
        before, parts = fingerprint(network.module), dict(network.module.named_modules())
        outputs = call(network.module, network.example)

        class Stop(Exception):  # noqa: N818 - no error
            """Raised to end the look early."""

        with pytest.raises(Stop), space.applied(network.module, walk(space)[-1]):
            raise Stop
        with space.applied(network.module, Moves()) as looked:
            assert all(torch.equal(call(looked, network.example)[name], outputs[name]) for name in outputs)
        assert fingerprint(network.module) == before
        assert dict(network.module.named_modules()) == parts
        assert not any(part.training or part._forward_hooks for part in network.module.modules())

    def test_moves_can_be_made_on_another_module_than_the_networks(self, model: str) -> None:
        network, space = self.looked_at(model)
        taken = walk(space)[-1]
        with space.applied(network.module, taken) as looked:
            wanted = call(looked, network.example)
        with space.applied(with_shared_weights(network.module), taken) as looked:
            found = call(looked, network.example)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    # samples and the smallest

    def test_samples_can_be_built_and_save_something_each(self, model: str, tmp_path: Path) -> None:
        network, space = self.looked_at(model)
        samples = list(space.samples())
        assert samples
        assert len(set(samples)) == len(samples)
        for moves in samples:
            assert len(moves)
            predicted = self.left(model, moves)
            _, facts = self.built(model, space.steps(moves, ()), tmp_path)
            assert [layer.name for layer in predicted] == [layer.name for layer in facts.layers]
            assert total(predicted) == pytest.approx(total(facts.layers), rel=TOGETHER)
            assert total(facts.layers) < total(network.facts.layers)

    def test_the_smallest_leaves_no_more_than_anything_else(self, model: str, tmp_path: Path) -> None:
        _, space = self.looked_at(model)
        _, facts = self.built(model, space.steps(space.smallest(), ()), tmp_path)
        least_macs, least_parameters = total(facts.layers)
        for moves in (*space.samples(), walk(space)[-1], walk(space, -1)[-1]):
            _, other = self.built(model, space.steps(moves, ()), tmp_path)
            macs, parameters = total(other.layers)
            assert macs >= least_macs
            assert parameters >= least_parameters

    def test_the_smallest_is_predicted_as_it_is_built(self, model: str, tmp_path: Path) -> None:
        _, space = self.looked_at(model)
        smallest = space.smallest()
        _, facts = self.built(model, space.steps(smallest, ()), tmp_path)
        predicted = self.left(model, smallest)
        assert [layer.name for layer in predicted] == [layer.name for layer in facts.layers]
        assert total(predicted) == pytest.approx(total(facts.layers), rel=TOGETHER)

    # proposed settings

    def test_it_proposes_the_steps_of_the_paths_that_were_found(self, model: str) -> None:
        network, space = self.looked_at(model)
        structures = [space.steps(moves, ()) for moves in walk(space)]
        another = Step("another", Stage.STRUCTURE, {"of": "another"})
        paths = (
            PruningPath("alone", tuple(Structure(steps, 0.1, 0.5, 0.5) for steps in structures)),
            PruningPath("together", (Structure((another, *structures[-1]), 0.1, 0.4, 0.4),)),
        )
        grid = list(self.technique().space(network.facts, Probes(paths=paths), ANY).grid())
        assert grid == [dict(step.settings) for step in dict.fromkeys(step for steps in structures for step in steps)]
        assert list(self.technique().space(network.facts, Probes(), ANY).grid()) == [{}]

    def test_it_is_refused_where_it_can_take_nothing_and_only_there(self, model: str) -> None:
        network, space = self.looked_at(model)

        def refusal(names: Iterable[str], left_alone: Mapping[str, str]) -> Reason | None:
            parts = Parts(self.technique.parts, tuple(names), dict(left_alone))
            return self.technique().refuses(network.facts, Probes(parts={self.technique.name: parts}), ANY)

        assert refusal(space.names, space.left_alone) is None
        reason = refusal((), {"stem": "the network counts on it."})
        assert reason is not None
        assert reason.sentence.endswith(".")
        assert reason.rule
        assert reason.fact

    def test_the_steps_of_its_moves_are_described_in_a_few_words(self, model: str) -> None:
        _, space = self.looked_at(model)
        sentences = []
        for moves in walk(space):
            settings: list[Mapping[str, Setting]] = [step.settings for step in space.steps(moves, ())]
            sentences.append(self.technique().describe(settings))
        assert all(sentences)
        # removing more is described differently from removing less
        assert len(set(sentences)) == len(sentences)
