import pytest

from autocompress.core.layer_patterns import matches_pattern, parts_of, require_layers
from autocompress.errors import ProfileError

NAMES = ("", "encoder", "encoder.layer", "encoder.layer.0", "encoder.layer.0.query", "encoder.layer.10", "head")


def test_a_layer_lies_inside_all_the_parts_around_it() -> None:
    assert list(parts_of("encoder.layer.0")) == ["encoder", "encoder.layer", "encoder.layer.0"]


@pytest.mark.parametrize(
    ("layer", "patterns", "declared"),
    [
        ("head", ["head"], True),
        ("head", [], False),
        ("heads", ["head"], False),
        ("encoder.layer.0.query", ["encoder.layer.0"], True),
        ("encoder.layer.0.query", ["encoder.layer.*"], True),
        ("encoder.layer.0.query", ["*.query"], True),
        ("encoder.layer.10", ["encoder.layer.1"], False),
        ("encoder.layer.0", ["encoder.layer.0.query"], False),
        ("Head", ["head"], False),
    ],
)
def test_names_count_for_what_is_inside_them(layer: str, patterns: list[str], declared: bool) -> None:
    assert matches_pattern(layer, patterns) is declared


def test_names_of_layers_and_patterns_that_match_one_pass() -> None:
    require_layers(NAMES, ["head", "encoder.*.query", "encoder.layer.1?"], "ignore")


def test_a_name_of_no_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"keep_float: there is no layer named 'haed'. Did you mean 'head'\?"):
        require_layers(NAMES, ["head", "haed"], "keep_float")


def test_a_pattern_of_no_layer_says_where_the_names_are() -> None:
    with pytest.raises(ProfileError, match="`autocompress inspect` lists the layers"):
        require_layers(NAMES, ["zzz.*.zzz"], "ignore")
