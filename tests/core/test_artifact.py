from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.artifact import DTYPES, Artifact, TensorSpec, describe_specs, require_file
from autocompress.errors import ArtifactError, AutocompressError, FreeDimensionError, UsageError

IMAGE = TensorSpec("input", "float32", (None, 3, 32, 32))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters=":="), min_size=1, max_size=10)


def artifact_in(folder: Path, files: dict[str, bytes], entry: str = "model.onnx") -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Artifact(folder, entry, tuple(files), "onnx", (IMAGE,), ())


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1x3x32x32:float32", TensorSpec("input", "float32", (1, 3, 32, 32))),
        ("1x3x32x32", TensorSpec("input", "float32", (1, 3, 32, 32))),
        ("ids=1x128:int64", TensorSpec("ids", "int64", (1, 128))),
        ("=4:bool", TensorSpec("input", "bool", (4,))),
        ("a=b=2:uint8", TensorSpec("a=b", "uint8", (2,))),
    ],
)
def test_an_input_spec_is_read_from_its_text(text: str, spec: TensorSpec) -> None:
    assert TensorSpec.parse(text) == spec


def test_the_caller_names_inputs_that_have_no_name() -> None:
    assert TensorSpec.parse("1x8", "input_1").name == "input_1"
    assert TensorSpec.parse("mask=1x8", "input_1").name == "mask"


@pytest.mark.parametrize(
    "text",
    ["", "x", "1x", "1xx3", "0x3", "-1x3", "1.5x3", "?x3", "1x3:float", "1x3:FLOAT32", "1 x 3", "1x3:int8:x"],
)
def test_what_is_no_input_spec_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not an input spec") as caught:
        TensorSpec.parse(text)
    assert "1x3x32x32:float32" in caught.value.hint
    assert all(dtype in caught.value.hint for dtype in DTYPES)


@settings(deadline=None)
@given(NAMES, st.sampled_from(DTYPES), st.lists(st.integers(1, 10**6), min_size=1, max_size=5).map(tuple))
def test_every_spec_with_fixed_sizes_is_parsed_back_from_its_text(
    name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    spec = TensorSpec(name, dtype, shape)
    assert TensorSpec.parse(str(spec)) == spec


@settings(deadline=None)
@given(st.text(max_size=40))
def test_whatever_is_written_gives_a_sound_spec_or_an_error_of_ours(text: str) -> None:
    try:
        spec = TensorSpec.parse(text)
    except AutocompressError:
        return
    assert spec.dtype in DTYPES
    assert spec.shape
    assert all(size is not None and size > 0 for size in spec.shape)


def test_a_free_dimension_beside_the_batch_has_no_size_by_itself() -> None:
    spec = TensorSpec("pixels", "float32", (None, 3, None, None), ("batch", "", "height", ""))
    assert spec.free_axes == (2, 3)
    with pytest.raises(FreeDimensionError) as caught:
        spec.with_batch(1)
    said = "free dimensions (height, dimension 4): give its shape with inputs: in the profile, "
    assert f"{said}--input pixels=1x3x128x128" in caught.value.message


def test_an_open_dtype_survives_its_text() -> None:
    spec = TensorSpec.parse("ids=1x8", default_dtype="")
    assert (spec.dtype, str(spec)) == ("", "ids=1x8")


def test_a_batch_fills_the_free_first_dimension() -> None:
    assert IMAGE.with_batch(8) == (8, 3, 32, 32)
    assert TensorSpec("ids", "int64", (None, 7)).with_batch(8) == (8, 7)
    assert TensorSpec("fixed", "float32", (2, 3)).with_batch(8) == (2, 3)


def test_free_dimensions_are_shown_as_questions() -> None:
    assert describe_specs([IMAGE, TensorSpec("ids", "int64", (1, None))]) == ("input=?x3x32x32:float32, ids=1x?:int64")


def test_the_batch_is_free_unless_an_input_binds_it(tmp_path: Path) -> None:
    free = artifact_in(tmp_path, {"model.onnx": b"x"})
    bound = Artifact(tmp_path, "model.onnx", free.files, "onnx", (TensorSpec("x", "float32", (4, 3)),), ())
    scalar = Artifact(tmp_path, "model.onnx", free.files, "onnx", (TensorSpec("x", "float32", ()),), ())
    assert (free.fixed_batch, bound.fixed_batch, scalar.fixed_batch) == (None, 4, None)


def test_the_size_counts_every_file(tmp_path: Path) -> None:
    assert artifact_in(tmp_path, {"model.onnx": b"12345", "weights.bin": b"123"}).size_bytes == 8


def test_the_hash_does_not_change_with_the_name_of_the_entry_or_its_folder(tmp_path: Path) -> None:
    first = artifact_in(tmp_path / "a", {"model.onnx": b"graph"})
    second = artifact_in(tmp_path / "b", {"winner.onnx": b"graph"}, "winner.onnx")
    assert first.hash == second.hash
    assert len(first.hash) == 64


def test_the_hash_does_not_change_with_the_name_of_the_entry_among_several_files(tmp_path: Path) -> None:
    first = artifact_in(tmp_path / "a", {"a.onnx": b"graph", "m.data": b"weights"}, "a.onnx")
    second = artifact_in(tmp_path / "b", {"z.onnx": b"graph", "m.data": b"weights"}, "z.onnx")
    assert first.hash == second.hash


def test_the_hash_does_not_change_with_the_order_in_which_files_are_listed(tmp_path: Path) -> None:
    one = artifact_in(tmp_path, {"model.onnx": b"graph", "weights.bin": b"1"})
    assert Artifact(tmp_path, one.entry, one.files[::-1], "onnx", one.inputs, ()).hash == one.hash


@pytest.mark.parametrize(
    "files",
    [
        {"model.onnx": b"grapH", "weights.bin": b"1"},
        {"model.onnx": b"graph", "weights.bin": b"2"},
        {"model.onnx": b"graph", "other.bin": b"1"},
        {"model.onnx": b"graph"},
        {"model.onnx": b"1", "weights.bin": b"graph"},
    ],
)
def test_the_hash_changes_with_contents_and_the_names_of_further_files(tmp_path: Path, files: dict[str, bytes]) -> None:
    one = artifact_in(tmp_path / "a", {"model.onnx": b"graph", "weights.bin": b"1"})
    assert artifact_in(tmp_path / "b", files).hash != one.hash


@settings(deadline=None)
@given(one=st.binary(max_size=64), other=st.binary(max_size=64))
def test_the_hashes_of_two_contents_are_equal_only_if_the_contents_are(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
) -> None:
    folder = tmp_path_factory.mktemp("artifacts")
    first = artifact_in(folder / "a", {"model.onnx": one})
    second = artifact_in(folder / "b", {"model.onnx": other})
    assert (first.hash == second.hash) is (one == other)


def test_a_copy_has_its_entry_where_it_was_asked_for_and_the_same_bytes(tmp_path: Path) -> None:
    source = artifact_in(tmp_path / "a", {"model.onnx": b"graph", "weights.bin": b"weights"})
    copy = source.copy_to(tmp_path / "new" / "out" / "winner.onnx")
    assert copy.path == tmp_path / "new" / "out" / "winner.onnx"
    assert copy.path.read_bytes() == b"graph"
    assert set(copy.files) == {"winner.onnx", "weights.bin"}
    assert {path.name for path in copy.root.iterdir()} == {"winner.onnx", "weights.bin"}
    assert (copy.format, copy.inputs, copy.outputs) == (source.format, source.inputs, source.outputs)
    assert source.path.read_bytes() == b"graph"


def test_a_copy_of_a_single_file_has_the_same_hash(tmp_path: Path) -> None:
    source = artifact_in(tmp_path / "a", {"model.onnx": b"graph"})
    assert source.copy_to(tmp_path / "b" / "winner.onnx").hash == source.hash


def test_a_copy_into_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    source = artifact_in(tmp_path / "a", {"model.onnx": b"graph"})
    (tmp_path / "file").write_text("i am no folder", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be"):
        source.copy_to(tmp_path / "file" / "model.onnx")


def test_a_readable_file_is_accepted_as_an_artifact(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    require_file(path)


@pytest.mark.parametrize(("name", "said"), [("gone", "does not exist"), ("", "not a file"), ("empty", "is empty")])
def test_what_is_no_artifact_is_refused_by_its_path(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ArtifactError, match=said) as caught:
        require_file(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
