"""The folder of a run, whose files are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.errors import UsageError
from autocompress.system.workers import Worker, left_by_the_dead

JOURNAL_FILES = ("journal.db", "journal.db-journal", "journal.db-wal", "journal.db-shm")
DEFAULT_FOLDER = Path("runs/latest")
# failures that a run survived, with their tracebacks
FAILURES = "failures.log"
RESULT_FILES = (
    "result.json",
    "plan.yaml",
    "model.onnx",
    "baseline.onnx",
    "certificate.json",
    "report.html",
    "trials.csv",
)


# only where the profile asks for it
DOWNLOAD_FILE = "model.onnx.acz"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    Temporary files of killed processes are removed by `Workspace.sweep`. A device such as /dev/stdout is written to,
    not replaced.

    Raises:
        UsageError: when the folder cannot be written.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            write(path)
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{Worker.me().tag}", dir=path.parent)
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
    """Write a text file atomically."""
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Append to a text file that other programs write to as well.

    Raises:
        UsageError: when it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror or error}).", where=str(path)) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UsageError: when it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error}).", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not JSON ({str(error)[:100]}).", where=str(path)) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        UsageError: when it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot be made a folder ({error.strerror or error}).", where=str(path), hint="Choose another folder."
        ) from error


@dataclass(frozen=True)
class Workspace:
    """The paths in a run's folder."""

    root: Path

    @property
    def journal(self) -> Path:
        """Path of the SQLite file that holds the record."""
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
        """Path of a file in the run's folder."""
        return self.root / name

    def sweep(self) -> None:
        """Remove the temporary files of killed processes."""
        for path in self.root.rglob(".*"):
            if left_by_the_dead(path.name):
                path.unlink(missing_ok=True)

    @property
    def newest_journal(self) -> Path | None:
        """The record's file of this run, else of the run before it; None when there was none."""
        older = [(int(p.parent.name), p) for p in self.root.glob("previous/*/journal.db") if p.parent.name.isdecimal()]
        return self.journal if self.journal.exists() else max(older, default=(0, None))[1]

    def make(self) -> None:
        """Create the run's folder.

        Raises:
            UsageError: when it cannot be created or is a file.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def open(self, *, resume: bool) -> None:
        """Prepare the folder; a new run moves the files of an earlier one to `previous/N`, so nothing is lost.

        Checkpoints without a record are left from a start that was killed: it is unknown which model they belong to.

        Raises:
            UsageError: when the folder cannot be made or is a file.
        """
        self.make()
        try:
            left = self.journal.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir()))
            if left and not (resume and self.journal.exists()):
                self._set_aside()
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> UsageError:
        return UsageError(
            f"cannot be used as the run's folder ({error.strerror or error}).",
            where=str(self.root),
            hint="Choose another one with --out.",
        )

    def _set_aside(self) -> None:
        older = self.root / "previous"
        older.mkdir(exist_ok=True)
        number = 1 + max((int(p.name) for p in older.iterdir() if p.name.isdecimal()), default=0)
        previous = older / str(number)
        previous.mkdir()
        # the record's files last: after a kill in between, the next start finds them and moves the rest
        weights = sorted(path.name for path in self.root.glob("weights-*.data"))
        kept = (
            self.checkpoints.name,
            self.resolved.name,
            *RESULT_FILES,
            DOWNLOAD_FILE,
            *weights,
            FAILURES,
            *reversed(JOURNAL_FILES),
        )
        for name in kept:
            source = self.root / name
            if source.exists():
                source.rename(previous / name)
