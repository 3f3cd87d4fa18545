"""The folder of a run. Files in it are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.errors import UsageError

JOURNAL_FILES = ("journal.db", "journal.db-journal", "journal.db-wal", "journal.db-shm")
DEFAULT_FOLDER = Path("runs/latest")
RESULT_FILES = (
    "result.json",
    "plan.yaml",
    "model.onnx",
    "baseline.onnx",
    "certificate.json",
    "report.html",
    "trials.csv",
)


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    Raises:
        UsageError: when the folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror or error}).", where=str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UsageError: when it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot be made a folder ({error.strerror or error}).", where=str(path), hint="Choose another folder."
        ) from error


@dataclass(frozen=True)
class Workspace:
    """Paths of a run's folder."""

    root: Path

    @property
    def journal(self) -> Path:
        """The SQLite file of the journal."""
        return self.root / "journal.db"

    @property
    def checkpoints(self) -> Path:
        """Folder of the artifacts of trials, named by the hash of their plan."""
        return self.root / "checkpoints"

    @property
    def resolved(self) -> Path:
        """Folder of the answers to other budgets, each in a folder of its own."""
        return self.root / "resolved"

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.root / name

    def open(self, *, resume: bool) -> None:
        """Make the folder ready. A new run moves what an earlier one left to `previous/N`, so nothing is lost.

        Raises:
            UsageError: when the folder cannot be made or is a file.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not resume and self.journal.exists():
                self._set_aside()
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot be used as the run's folder ({error.strerror or error}).",
                where=str(self.root),
                hint="Choose another one with --out.",
            ) from error

    def _set_aside(self) -> None:
        older = self.root / "previous"
        older.mkdir(exist_ok=True)
        number = 1 + max((int(p.name) for p in older.iterdir() if p.name.isdecimal()), default=0)
        previous = older / str(number)
        previous.mkdir()
        for name in (*RESULT_FILES, *JOURNAL_FILES, self.checkpoints.name, self.resolved.name):
            source = self.root / name
            if source.exists():
                source.rename(previous / name)
