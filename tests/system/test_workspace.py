import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.errors import UsageError
from autocompress.system.workspace import RESULT_FILES, Workspace, write_atomically, write_json, write_text


class Interrupted(Exception):  # noqa: N818 - it stands for whatever a writer may raise
    pass


def write_half(target: Path) -> None:
    target.write_text("half of the new cont", encoding="utf-8")
    raise Interrupted


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "äß\n")
    assert path.read_bytes() == "äß\n".encode()
    assert names(tmp_path) == {"result.json"}


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(Interrupted):
        write_atomically(path, write_half)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == {"plan.yaml"}


def test_a_writer_that_raises_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        write_atomically(tmp_path / "plan.yaml", write_half)
    assert names(tmp_path) == set()


def test_the_old_file_stands_whole_until_the_new_one_does(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("old", encoding="utf-8")
    seen: list[str] = []

    def write(target: Path) -> None:
        target.write_text("new", encoding="utf-8")
        seen.append(path.read_text(encoding="utf-8"))

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text(encoding="utf-8") == "new"


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_text(tmp_path / "report.html", "x")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("parent", ["file", "missing"])
def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("i am no folder", encoding="utf-8")
    path = tmp_path / parent / "result.json"
    with pytest.raises(UsageError, match="cannot be written") as caught:
        write_text(path, "{}")
    assert caught.value.where == str(path)
    assert names(tmp_path) == {"file"}


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_text(tmp_path / "result.json", "{}")
    assert names(tmp_path) == {"result.json"}
    assert (tmp_path / "result.json").is_dir()


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    data = {"name": "Größe", "values": [1, 2.5, None]}
    write_json(tmp_path / "result.json", data)
    text = (tmp_path / "result.json").read_text(encoding="utf-8")
    assert json.loads(text) == data
    assert "Größe" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_refused_before_anything_is_written(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "result.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "result.json", {"value": value})
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == {"old": 1}


def test_opening_makes_the_folder_and_its_checkpoints(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "runs" / "demo")
    workspace.open(resume=False)
    assert workspace.checkpoints.is_dir()
    assert names(workspace.root) == {"checkpoints"}


def leave_a_run(workspace: Workspace) -> None:
    workspace.open(resume=False)
    workspace.journal.write_text("trials", encoding="utf-8")
    (workspace.checkpoints / "abc").write_text("weights", encoding="utf-8")
    for name in RESULT_FILES:
        workspace.path(name).write_text(name, encoding="utf-8")


def test_a_new_run_moves_what_an_earlier_one_left_aside(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    leave_a_run(workspace)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    workspace.resolved.mkdir()
    workspace.open(resume=False)
    assert names(tmp_path) == {"checkpoints", "previous", "notes.txt"}
    assert names(workspace.checkpoints) == set()
    assert names(tmp_path / "previous" / "1") == {*RESULT_FILES, "journal.db", "checkpoints", "resolved"}
    assert (tmp_path / "previous" / "1" / "journal.db").read_text(encoding="utf-8") == "trials"
    assert (tmp_path / "previous" / "1" / "checkpoints" / "abc").read_text(encoding="utf-8") == "weights"


def test_resuming_moves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    leave_a_run(workspace)
    before = names(tmp_path)
    workspace.open(resume=True)
    assert names(tmp_path) == before
    assert workspace.journal.read_text(encoding="utf-8") == "trials"


def test_resuming_without_a_journal_starts_afresh(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "new")
    workspace.open(resume=True)
    assert names(workspace.root) == {"checkpoints"}


@pytest.mark.parametrize("resume", [True, False])
def test_checkpoints_of_nobody_knows_which_model_are_moved_aside(tmp_path: Path, resume: bool) -> None:
    workspace = Workspace(tmp_path)
    leave_a_run(workspace)
    workspace.journal.unlink()
    workspace.open(resume=resume)
    assert names(workspace.checkpoints) == set()
    assert (tmp_path / "previous" / "1" / "checkpoints" / "abc").exists()


def test_the_newest_journal_is_the_runs_own_else_that_of_the_run_before(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.newest_journal is None
    for _ in range(11):
        leave_a_run(workspace)
    assert workspace.newest_journal == workspace.journal
    workspace.journal.unlink()
    # by number, not by name
    assert workspace.newest_journal == tmp_path / "previous" / "10" / "journal.db"


@pytest.mark.parametrize("below", [lambda file: file, lambda file: file / "demo"], ids=["itself", "below"])
def test_a_file_in_the_place_of_the_folder_is_an_error_that_names_it(
    tmp_path: Path, below: Callable[[Path], Path]
) -> None:
    file = tmp_path / "file"
    file.write_text("i am no folder", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be used as the run's folder") as caught:
        Workspace(below(file)).open(resume=False)
    assert caught.value.where == str(below(file))
    assert file.read_text(encoding="utf-8") == "i am no folder"
