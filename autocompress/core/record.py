"""The record of a run: every trial ever made and every fact noted, behind two contracts and with typed properties.

`TrialStore` and `NoteStore` are what a database has to do; `Record` is what the rest of the package reads and writes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.probes import Probes
from autocompress.core.trial import Trial
from autocompress.core.verdict import Verdict
from autocompress.system.workers import Worker

SCHEMA = 2


class TrialStore(ABC):
    """Trials and the claims on them, shared by all workers of a run."""

    @abstractmethod
    def trials(self) -> list[Trial]:
        """All trials in the order they were claimed; claims that were given back are not among them."""

    @abstractmethod
    def claim(self, plan: Plan) -> AbstractContextManager[int | None]:
        """The number of a new trial of this plan, claimed for as long as the block runs.

        None when another worker has claimed or finished the plan in the meantime. A block that is left without
        `finish` gives the claim back.
        """

    @abstractmethod
    def finish(self, trial: Trial) -> None:
        """Write down how a claimed trial ended; what comes after the claim was given to another does not count."""

    @abstractmethod
    def release_dead_claims(self) -> int:
        """Give back the claims of workers that are gone; how many there were.

        What a worker wrote down before it was killed stands: such a trial is no claim any more.
        """


class NoteStore(ABC):
    """JSON values by key, each changed in one step."""

    @abstractmethod
    def read(self, key: str) -> Any:
        """The value, None when it was never written."""

    @abstractmethod
    def amend(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace a value by what `change` makes of it (of None when it was never written), as one transaction.

        `change` uses nothing of the store. The value as it is now is returned.

        Raises:
            ValueError: when the new value is no JSON.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""


@dataclass(frozen=True)
class RunInputs:
    """What it takes to judge a run's files again without its model.

    Args:
        profile: the profile as `Profile.to_json` gives it.
        machine: fingerprint of the machine that measured.
        machine_name: the same in words.
        example: specs of the example inputs, as text.
        score: name of the task's score, empty without data.
        named: the texts that named model, data and profile, and the folder that relative paths start from.
    """

    profile: Mapping[str, Any]
    machine: str
    machine_name: str
    example: Sequence[str]
    score: str
    named: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConfirmationNote:
    """A confirmation as it is written down; `certificate` is the content of certificate.json."""

    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "measurement": self.measurement.to_json(),
            "verdict": self.verdict.to_json(),
            "certificate": dict(self.certificate),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ConfirmationNote:
        """The note that `to_json` wrote."""
        return ConfirmationNote(
            Measurement.from_json(data["measurement"]), Verdict.from_json(data["verdict"]), data["certificate"]
        )


@dataclass(eq=False)
class Record:
    """Trials and facts of one run."""

    trial_store: TrialStore
    notes: NoteStore

    # trials

    def trials(self) -> list[Trial]:
        """See `TrialStore.trials`."""
        return self.trial_store.trials()

    def claim(self, plan: Plan) -> AbstractContextManager[int | None]:
        """See `TrialStore.claim`."""
        return self.trial_store.claim(plan)

    def finish(self, trial: Trial) -> None:
        """See `TrialStore.finish`."""
        self.trial_store.finish(trial)

    def release_dead_claims(self) -> int:
        """See `TrialStore.release_dead_claims`."""
        return self.trial_store.release_dead_claims()

    # whose run it is

    @property
    def schema(self) -> int | None:
        """The version of what is written, None in a record that no run has begun."""
        found = self.notes.read("schema")
        return None if found is None else int(found)

    @property
    def identity(self) -> Mapping[str, str]:
        """Hashes of model, data and profile, budgets and objective; empty before a run has begun."""
        return self.notes.read("identity") or {}

    def begin(self, identity: Mapping[str, str], inputs: RunInputs, looks: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write down whose run it is, with the looks that earlier runs took at the same data."""
        self._write("identity", dict(identity))
        self._write("looks", list(looks))
        self.inputs = inputs
        self._write("schema", SCHEMA)

    @property
    def inputs(self) -> RunInputs:
        """See `RunInputs`; a KeyError or TypeError where nothing that fits was written."""
        return RunInputs(**self.notes.read("inputs"))

    @inputs.setter
    def inputs(self, inputs: RunInputs) -> None:
        self._write("inputs", asdict(inputs))

    # what was found out before anything was tried

    @property
    def baseline(self) -> Measurement | None:
        """The model as it is, measured."""
        found = self.notes.read("baseline")
        return None if found is None else Measurement.from_json(found)

    @baseline.setter
    def baseline(self, measurement: Measurement) -> None:
        self._write("baseline", measurement.to_json())

    @property
    def facts(self) -> Facts | None:
        """What the model is."""
        found = self.notes.read("facts")
        return None if found is None else Facts.from_json(found)

    @facts.setter
    def facts(self, facts: Facts) -> None:
        self._write("facts", facts.to_json())

    @property
    def probes(self) -> Probes | None:
        """What pays on this device, and what can go from the network."""
        found = self.notes.read("probes")
        return None if found is None else Probes.from_json(found)

    @probes.setter
    def probes(self, probes: Probes) -> None:
        self._write("probes", probes.to_json())

    @property
    def structure_attempts(self) -> int:
        """How often the space of structures was looked through."""
        return int(self.notes.read("structure_attempts") or 0)

    @structure_attempts.setter
    def structure_attempts(self, attempts: int) -> None:
        self._write("structure_attempts", attempts)

    def structure(self, series: str, plan: Plan) -> tuple[bool, Sequence[float] | None]:
        """True and what was measured of an untrained structure in a `series` of measurements; None where it could not
        be built. False where it was not tried yet."""
        found = self.notes.read(f"structures {series}") or {}
        return plan.hash in found, found.get(plan.hash)

    def keep_structure(self, series: str, plan: Plan, measured: Sequence[float] | None) -> Sequence[float] | None:
        """Write down what was measured of a structure, unless another worker did so before; what stands now."""
        value = None if measured is None else list(measured)
        stands: Sequence[float] | None = self._write_first(f"structures {series}", plan.hash, value)
        return stands

    # what was measured after a trial had ended

    @property
    def nearest_misses(self) -> Mapping[int, Trial]:
        """Trials that were measured to the end because they came close, by number."""
        found = self.notes.read("nearest_misses") or {}
        return {int(number): Trial.from_json(int(number), trial) for number, trial in found.items()}

    def keep_nearest_miss(self, trial: Trial) -> Trial:
        """Write a near miss down, unless another worker did so before; the one that stands now."""
        return Trial.from_json(trial.number, self._write_first("nearest_misses", str(trial.number), trial.to_json()))

    @property
    def later_measurements(self) -> Mapping[int, Measurement]:
        """What was measured for other budgets, by the trial's number."""
        found = self.notes.read("measured_later") or {}
        return {int(number): Measurement.from_json(taken) for number, taken in found.items()}

    def add_later_measurement(self, number: int, taken: Measurement) -> None:
        """Write down what was measured of a trial for other budgets."""
        key = str(number)

        def add(kept: dict[str, Any] | None) -> dict[str, Any]:
            before = Measurement.from_json(kept[key]) if kept and key in kept else Measurement()
            return {**(kept or {}), key: before.with_(taken).to_json()}

        self.notes.amend("measured_later", add)

    # confirmations and looks at the holdout

    def confirmation(self, plan: Plan) -> ConfirmationNote | None:
        """The run's own confirmation of a plan."""
        found = (self.notes.read("confirmations") or {}).get(plan.hash)
        return None if found is None else ConfirmationNote.from_json(found)

    @property
    def confirmed_plans(self) -> Sequence[str]:
        """Hashes of the plans that the run confirmed."""
        return list(self.notes.read("confirmations") or {})

    def keep_confirmation(self, plan: Plan, note: ConfirmationNote) -> None:
        """Write a confirmation down; the first one stands."""
        self._write_first("confirmations", plan.hash, note.to_json())

    def confirmations_for_other_budgets(self, plan: Plan) -> Sequence[ConfirmationNote]:
        """Those that were made after the run, for other budgets, the earliest first.

        They are kept apart: a run that is resumed must find its confirmations judged by its own budgets.
        """
        found = (self.notes.read("resolved") or {}).get(plan.hash, [])
        return [ConfirmationNote.from_json(one) for one in found]

    def add_confirmation_for_other_budgets(self, plan: Plan, note: ConfirmationNote) -> None:
        """Write down a confirmation for other budgets."""
        key, content = plan.hash, note.to_json()

        def add(kept: dict[str, Any] | None) -> dict[str, Any]:
            return {**(kept or {}), key: [*(kept or {}).get(key, []), content]}

        self.notes.amend("resolved", add)

    @property
    def looks(self) -> Sequence[Mapping[str, Any]]:
        """Every look at the holdout: the file by its hash, and when."""
        found: Sequence[Mapping[str, Any]] = self.notes.read("looks") or []
        return found

    def spend_look(self, what: str) -> int:
        """Write down a look at the holdout, before it is taken; its number, from 1.

        `what` identifies the file: to look at the same file again tells nothing new and costs nothing.
        """

        def add(looks: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            looks = looks or []
            known = any(look["what"] == what for look in looks)
            return looks if known else [*looks, {"what": what, "time": time.time()}]

        return [look["what"] for look in self.notes.amend("looks", add)].index(what) + 1

    # time and workers

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, over all its resumptions."""
        return float(self.notes.read("elapsed") or 0.0)

    def spend_time(self, seconds: float) -> None:
        """Write down how long the run has taken so far; of what several workers say, the most counts."""
        self.notes.amend("elapsed", lambda before: max(before or 0.0, seconds))

    def own(self) -> None:
        """Write down that this process is at work on the run."""
        me = Worker.me()
        self.notes.amend("owners", lambda owners: {**_living(owners), me.key: me.to_json()})

    def release(self) -> None:
        """Write down that this process is no longer at work."""
        me = Worker.me()
        self.notes.amend("owners", lambda owners: {k: owner for k, owner in _living(owners).items() if k != me.key})

    @property
    def owners(self) -> Mapping[str, Worker]:
        """Workers that said that they are at work on the run, by their key."""
        return {key: Worker.from_json(owner) for key, owner in (self.notes.read("owners") or {}).items()}

    @property
    def busy(self) -> bool:
        """True when another living process of this host is at work on the run."""
        return any(owner.alive for key, owner in self.owners.items() if key != Worker.me().key)

    def close(self) -> None:
        """Let go of the database."""
        self.notes.close()

    def _write(self, key: str, value: Any) -> None:
        self.notes.amend(key, lambda _: value)

    def _write_first(self, key: str, entry: str, value: Any) -> Any:
        """Write down an entry unless another worker did so before; the one that stands now."""
        return self.notes.amend(key, lambda entries: {entry: value, **(entries or {})})[entry]


def _living(owners: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those that may still be at work: the dead of this host are left out."""
    workers = {key: Worker.from_json(owner) for key, owner in (owners or {}).items()}
    return {key: worker.to_json() for key, worker in workers.items() if worker.alive or not worker.here}
