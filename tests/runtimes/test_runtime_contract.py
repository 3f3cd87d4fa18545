from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import onnx
import pytest

from autocompress.core.profile import Profile, RuntimeProfile
from autocompress.core.runtime import Runtime
from autocompress.errors import ArtifactError, ProfileError, RuntimeFailureError
from autocompress.runtimes import RUNTIMES, OnnxRuntime, runtime_of
from autocompress.testing.networks import Exported
from autocompress.testing.runtime_suite import RuntimeSuite


class TestOnnxRuntime(RuntimeSuite):
    runtime: ClassVar[type[Runtime]] = OnnxRuntime

    def test_nothing_but_the_graph_is_in_the_file(self, exported: Exported) -> None:
        model = onnx.load(exported.artifact.path)
        assert model.producer_name == "autocompress"
        assert {model.producer_version, model.doc_string, model.domain, model.graph.doc_string} == {""}
        parts = (model, model.graph, *model.graph.node, *model.graph.initializer)
        assert not [part for part in (*parts, *model.graph.input, *model.graph.output) if part.metadata_props]
        assert not [node for node in model.graph.node if node.name or node.doc_string]
        assert not [t for t in (*model.graph.initializer, *model.graph.input) if t.doc_string]
        assert not model.graph.value_info

    def test_nothing_tells_where_or_from_what_code_the_file_was_made(self, exported: Exported) -> None:
        content = exported.artifact.path.read_bytes()
        layers = [name for name, _ in exported.module.named_children() if len(name) > 3]
        # a folder with a name of a few letters could be anything
        folders = [part for part in Path(__file__).parts[1:] if len(part) > 3]
        for trace in (*layers, *folders, "conftest", "site-packages", "torch", "module"):
            assert trace.encode() not in content

    def test_an_option_that_onnxruntime_refuses_is_a_runtime_failure(self, mlp: Exported) -> None:
        with pytest.raises(RuntimeFailureError, match="is refused by onnxruntime") as caught:
            OnnxRuntime().load(mlp.artifact, 2, {"session.intra_op_thread_affinities": "nonsense"})
        assert caught.value.exit_code == 4

    def test_weights_in_a_second_file_count(self, mlp: Exported, tmp_path: Path) -> None:
        path = tmp_path / "split.onnx"
        model = onnx.load(mlp.artifact.path)
        onnx.save(model, path, save_as_external_data=True, location="split.data", size_threshold=0)
        whole = sum(file.stat().st_size for file in tmp_path.iterdir())
        with suppress(ArtifactError):  # refusing such models would be as good
            assert OnnxRuntime().read(path).size_bytes == whole


@pytest.mark.parametrize(
    ("name", "hint"),
    [("onnxruntim", "Did you mean 'onnxruntime'?"), ("tflite", "Known: onnxruntime."), ("", "Known: onnxruntime.")],
)
def test_a_runtime_that_is_not_known_is_refused_with_the_profile_and_a_hint(name: str, hint: str) -> None:
    profile = Profile("phone", runtime=RuntimeProfile(name=name))
    with pytest.raises(ProfileError, match=f"there is no runtime named '{name}'") as caught:
        runtime_of(profile)
    assert caught.value.where == "profile phone: runtime.name"
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


def test_a_profile_that_says_nothing_has_a_runtime() -> None:
    assert isinstance(runtime_of(Profile("here")), OnnxRuntime)


def test_every_runtime_has_a_name_and_a_suffix_of_its_own() -> None:
    assert len({runtime.name for runtime in RUNTIMES}) == len({runtime.suffix for runtime in RUNTIMES}) == len(RUNTIMES)


def test_every_runtime_inherits_the_suite() -> None:
    suites = {suite.runtime: suite for suite in RuntimeSuite.__subclasses__() if suite.__module__ == __name__}
    for runtime in RUNTIMES:
        assert suites[runtime].__name__.startswith("Test"), runtime
    assert set(suites) == set(RUNTIMES)
