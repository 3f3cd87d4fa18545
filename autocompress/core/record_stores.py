"""Contracts TrialStore and NoteStore: what a database has to do to keep the record of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from autocompress.core.plan import Plan
from autocompress.core.trial import Trial


class TrialStore(ABC):
    """Contract for the storage of trials and of the claims on them, shared by all workers of a run."""

    @abstractmethod
    def trials(self) -> list[Trial]:
        """All trials in the order they were claimed, without claims that were given back."""

    @abstractmethod
    def claim(self, plan: Plan) -> AbstractContextManager[int | None]:
        """Claim a plan as a new trial for as long as the `with` block runs; gives the trial's number.

        None when another worker has claimed or finished the plan in the meantime. A block that is left without
        `finish` gives the claim back.
        """

    @abstractmethod
    def finish(self, trial: Trial) -> None:
        """Store how a claimed trial ended.

        A result that comes after the claim was given to another worker does not count.
        """

    @abstractmethod
    def release_dead_claims(self) -> int:
        """Give back the claims of workers that are gone, and return their number.

        What a worker stored before it was killed stands: such a trial is no longer a claim.
        """


class NoteStore(ABC):
    """Contract for the storage of JSON values by key, each changed in one transaction."""

    @abstractmethod
    def read(self, key: str) -> Any:
        """The value stored under a key, None when it was never written."""

    @abstractmethod
    def amend(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace a value by `change(value)` in one transaction, and return the new value.

        `change` gets None when the value was never written, and uses nothing of the store itself.

        Raises:
            ValueError: when the new value is no JSON.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the database."""
