"""Groups lead to the nodes that matter: property tests on made-up networks whose losses add up."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.analysis.sensitive_groups import most_sensitive_first
from autocompress.runtimes.quantizable_nodes import NodeFact

LOSSES = st.lists(
    st.tuples(st.sampled_from(["Conv", "Add", "Mul"]), st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0])), max_size=40
)


def made_up(losses: Sequence[tuple[str, float]]) -> tuple[list[NodeFact], dict[str, float]]:
    nodes = [
        NodeFact(str(place), kind, (str(place),), (), (), 10 if kind == "Conv" else 0, 1.0 / (1 + place))
        for place, (kind, _) in enumerate(losses)
    ]
    return nodes, {str(place): loss for place, (_, loss) in enumerate(losses)}


@settings(deadline=None)
@given(LOSSES)
def test_every_node_that_matters_and_every_node_with_weights_comes_once(losses: list[tuple[str, float]]) -> None:
    nodes, loss = made_up(losses)
    came = list(most_sensitive_first(nodes, lambda group: sum(loss[node.name] for node in group), 0.1))
    assert len({node.name for node in came}) == len(came)
    assert {node.name for node in came} >= {node.name for node in nodes if loss[node.name] or node.weights}


@settings(deadline=None)
@given(LOSSES)
def test_what_cannot_be_measured_is_looked_into(losses: list[tuple[str, float]]) -> None:
    nodes, _ = made_up(losses)
    came = list(most_sensitive_first(nodes, lambda group: None, 0.1))
    assert sorted(node.name for node in came) == sorted(node.name for node in nodes)


def test_one_node_of_hundreds_is_found_by_few_measurements() -> None:
    nodes, loss = made_up([("Conv", 0.0)] * 100 + [("Add", float(place == 77)) for place in range(128)])
    asked: list[int] = []

    def won(group: Sequence[NodeFact]) -> float:
        asked.append(len(group))
        return sum(loss[node.name] for node in group)

    coming = most_sensitive_first(nodes, won, 0.1)
    came = [node.name for node in coming]
    assert "177" in came[:4]
    assert len(asked) <= 2 + 2 * 6
    # the others with weights follow, the largest rounding errors first
    assert came[-100:] == [str(place) for place in range(100)]
