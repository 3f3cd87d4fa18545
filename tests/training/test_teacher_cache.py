from pathlib import Path

import pytest
import torch

from autocompress.training import teacher_cache
from autocompress.training.teacher_cache import TeacherCache


def test_answers_are_asked_for_once_and_kept_as_they_were_given(tmp_path: Path) -> None:
    asked: list[int] = []

    def ask() -> dict[str, torch.Tensor]:
        asked.append(1)
        return {"logits": torch.full((2, 3), 1 / 3, dtype=torch.bfloat16), "boxes": torch.ones(2, 4)}

    answers = TeacherCache(tmp_path / "answers.pt")
    given = answers.to(7, ask)
    answers.save()
    again = TeacherCache(tmp_path / "answers.pt").to(7, ask)
    assert len(asked) == 1
    assert again["logits"].dtype == torch.bfloat16
    assert list(again) == ["logits", "boxes"]
    assert all(torch.equal(given[name], again[name]) for name in given)


def test_answers_without_a_file_are_asked_for_each_time() -> None:
    asked: list[int] = []
    answers = TeacherCache(None)
    for _ in range(2):
        answers.to(0, lambda: {"output": torch.ones(asked.append(1) or 1)})
    answers.save()
    assert len(asked) == 2


def test_beyond_what_may_be_kept_answers_are_asked_for_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "MOST_KEPT_BYTES", 8)
    asked: list[int] = []
    answers = TeacherCache(tmp_path / "answers.pt")
    for _ in range(2):
        answers.to(0, lambda: {"output": torch.ones(asked.append(1) or 100)})
    assert len(asked) == 2
