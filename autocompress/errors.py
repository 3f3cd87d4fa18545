"""The package's exceptions: every error says what is wrong, where, and what to do.

Exit codes follow the command line's promise: 1 not met, 2 usage or input, 3 undecided, 4 device or runtime.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar


class AutocompressError(Exception):
    """Base of all errors of this package.

    Args:
        message: what is wrong, in one sentence.
        where: the file, key or layer it is about.
        hint: what to do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        if not self.hint:
            return f"{place}{self.message}"
        # messages of other libraries come without a full stop
        stop = "" if self.message.rstrip().endswith((".", "!", "?", ":")) else "."
        return f"{place}{self.message.rstrip()}{stop} {self.hint}"


class UsageError(AutocompressError):
    """An option or argument that cannot be used as given."""


class ProfileError(AutocompressError):
    """A profile file that is missing, malformed or contradicts itself."""


class ModelError(AutocompressError):
    """A model that cannot be loaded or run."""


class ExportError(ModelError):
    """A model that the runtime cannot export, or whose export computes something else."""


class DataError(AutocompressError):
    """Data that cannot be read or does not fit the model."""


class UnusableItemError(DataError):
    """An item that cannot be read or does not fit the model.

    No other candidate can be judged with it either.
    """


class FreeDimensionError(DataError):
    """An input whose size neither the file, nor the profile, nor the data give: it cannot be timed."""


class ArtifactError(AutocompressError):
    """A file that is not the artifact it should be."""


class PlanError(AutocompressError):
    """A plan that is malformed or names an unknown technique or setting."""


class RecordError(AutocompressError):
    """A record that belongs to other inputs or cannot be read."""


class MissingExtraError(AutocompressError):
    """An optional library that is not installed."""


class DeviceError(AutocompressError):
    """A device that cannot be used, or is not the one the profile describes."""

    exit_code = 4


class RuntimeFailureError(AutocompressError):
    """The runtime or the measuring process failed while it ran an artifact."""

    exit_code = 4


class TechniqueError(AutocompressError):
    """A technique that could not do its work on this model; it ends the trial, not the run."""


class InterruptedRunError(AutocompressError):
    """A run that was interrupted from outside; what it measured is kept."""

    exit_code = 130


class TerminatedRunError(InterruptedRunError):
    """A run that was ended by SIGTERM; what it measured is kept."""

    exit_code = 143


class BudgetsNotMetError(AutocompressError):
    """Raised by `Result.unwrap` when the answer is "not met"."""

    exit_code = 1


class UndecidedError(AutocompressError):
    """Raised by `Result.unwrap` when the answer is "undecided"."""

    exit_code = 3


# these end a run wherever they are raised; any other error of a trial ends that trial
ENDS_THE_RUN = (DeviceError, RecordError, InterruptedRunError, UsageError, ProfileError, UnusableItemError)


def sentence_of(error: Exception) -> str:
    """An error as a sentence: one of this package as it is, any other with its type before its first line."""
    if isinstance(error, AutocompressError):
        return str(error)
    said = said_by(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def said_by(error: BaseException | str) -> str:
    """What an error says in its first line, with the next one where that only introduces it."""
    # the text of a syntax error ends in its place, which is named beside it
    text = (error.msg or "") if isinstance(error, SyntaxError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    shown = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return " ".join(line[:300] for line in shown)[:300]


@contextmanager
def raised_as(kind: type[AutocompressError], where: str) -> Iterator[None]:
    """Turn whatever is raised in the block into an error of this `kind`, with its type named.

    Errors of this package pass as they are. The original error is the cause, so that its traceback is not lost.
    """
    try:
        yield
    except AutocompressError:
        raise
    except Exception as error:
        raise kind(f"{sentence_of(error)}", where=where) from error


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the known word nearest to `word`, else the `otherwise` text, else all known words."""
    names = list(known)
    lower = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return f"Did you mean {lower[close[0]]!r}?" if close else otherwise or f"Known: {', '.join(names)}."
