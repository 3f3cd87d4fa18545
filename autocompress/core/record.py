"""The record of a run: every trial and every fact noted, behind two storage contracts.

`TrialStore` and `NoteStore` are what a database has to do; `Record` has the typed properties that the rest of the
package reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autocompress.core.data_check import DataCheck
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.probes import Probes
from autocompress.core.record_stores import NoteStore, TrialStore
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Verdict
from autocompress.system.workers import Worker

SCHEMA = 3


@dataclass(frozen=True)
class RunInputs:
    """Inputs of a run that are needed to judge its files again without its model.

    Args:
        profile: the profile as `Profile.to_json` gives it.
        machine: fingerprint of the machine that measured.
        machine_name: name of that machine for people.
        example: specs of the example inputs, as text.
        named: the texts that named model, data and profile, and the folder that relative paths start from.
    """

    profile: Mapping[str, Any]
    machine: str
    machine_name: str
    example: Sequence[str]
    named: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConfirmationNote:
    """A confirmation as it is stored in the record; `certificate` is the content of certificate.json."""

    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The confirmation note as a JSON object."""
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
        """See `TrialStore.trials`; a trial that failed after it had ended counts as failed, with that reason."""
        later = self.notes.read("failed_later") or {}
        return [
            replace(trial, outcome=Outcome.FAILED, reason=later[trial.plan.hash]) if trial.plan.hash in later else trial
            for trial in self.trial_store.trials()
        ]

    def fail_later(self, plan: Plan, reason: str) -> None:
        """Note that a plan failed after its trial had ended: when it was confirmed, or measured to the end."""
        self._write_first("failed_later", plan.hash, reason)

    def claim(self, plan: Plan) -> AbstractContextManager[int | None]:
        """See `TrialStore.claim`."""
        return self.trial_store.claim(plan)

    def finish(self, trial: Trial) -> None:
        """See `TrialStore.finish`."""
        self.trial_store.finish(trial)

    def release_dead_claims(self) -> int:
        """See `TrialStore.release_dead_claims`."""
        return self.trial_store.release_dead_claims()

    # identity of the run

    @property
    def schema(self) -> int | None:
        """The version of the record's format, None in a record that no run has begun."""
        found = self.notes.read("schema")
        return None if found is None else int(found)

    @property
    def identity(self) -> Mapping[str, str]:
        """Hashes of model, data and profile, budgets and objective; empty before a run has begun."""
        return self.notes.read("identity") or {}

    def begin(
        self,
        identity: Mapping[str, str],
        inputs: RunInputs,
        looks: Sequence[Mapping[str, Any]] = (),
        data_check: DataCheck | None = None,
    ) -> None:
        """Store the run's identity and inputs, with the looks that earlier runs took at the same holdout."""
        self._write("identity", dict(identity))
        self._write("looks", list(looks))
        if data_check is not None:
            self._write("data_check", data_check.to_json())
        self.inputs = inputs
        self._write("schema", SCHEMA)

    @property
    def inputs(self) -> RunInputs:
        """The run's inputs; raises KeyError or TypeError where none were stored or they do not fit."""
        return RunInputs(**self.notes.read("inputs"))

    @inputs.setter
    def inputs(self, inputs: RunInputs) -> None:
        self._write("inputs", asdict(inputs))

    @property
    def data_check(self) -> DataCheck | None:
        """What the check of the data found when the run began; None without data."""
        found = self.notes.read("data_check")
        return None if found is None else DataCheck.from_json(found)

    # facts found before the search

    @property
    def baseline(self) -> Measurement | None:
        """Measurement of the unchanged model, None before it was measured."""
        found = self.notes.read("baseline")
        return None if found is None else Measurement.from_json(found)

    @baseline.setter
    def baseline(self, measurement: Measurement) -> None:
        self._write("baseline", measurement.to_json())

    @property
    def facts(self) -> Facts | None:
        """Facts of the model, None before they were found."""
        found = self.notes.read("facts")
        return None if found is None else Facts.from_json(found)

    @facts.setter
    def facts(self, facts: Facts) -> None:
        self._write("facts", facts.to_json())

    @property
    def probes(self) -> Probes | None:
        """Probes of the model on this device, None before they were measured."""
        found = self.notes.read("probes")
        return None if found is None else Probes.from_json(found)

    @probes.setter
    def probes(self, probes: Probes) -> None:
        self._write("probes", probes.to_json())

    @property
    def structure_attempts(self) -> int:
        """How many times the space of structures has been searched."""
        return int(self.notes.read("structure_attempts") or 0)

    @structure_attempts.setter
    def structure_attempts(self, attempts: int) -> None:
        self._write("structure_attempts", attempts)

    @property
    def precision_tried(self) -> tuple[str, ...]:
        """The quantizations to which the sensitivity of the layers was measured, or could not be."""
        return tuple(self.notes.read("precision_tried") or ())

    @precision_tried.setter
    def precision_tried(self, techniques: Sequence[str]) -> None:
        self._write("precision_tried", list(techniques))

    def structure(self, series: str, plan: Plan) -> tuple[bool, Sequence[float] | None]:
        """Whether an untrained structure was measured in a `series` of measurements, and the result.

        True with the measured values, or with None where it could not be built. False where it was not tried yet.
        """
        found = self.notes.read(f"structures {series}") or {}
        return plan.hash in found, found.get(plan.hash)

    def keep_structure(self, series: str, plan: Plan, measured: Sequence[float] | None) -> Sequence[float] | None:
        """Store the measurement of a structure unless another worker did so before; returns the stored one."""
        value = None if measured is None else list(measured)
        stands: Sequence[float] | None = self._write_first(f"structures {series}", plan.hash, value)
        return stands

    # measurements taken after a trial had ended

    @property
    def nearest_misses(self) -> Mapping[int, Trial]:
        """Near misses with all their measurements, by number of the trial."""
        found = self.notes.read("nearest_misses") or {}
        return {int(number): Trial.from_json(int(number), trial) for number, trial in found.items()}

    def keep_nearest_miss(self, trial: Trial) -> Trial:
        """Store a near miss unless another worker did so before; returns the stored one."""
        return Trial.from_json(trial.number, self._write_first("nearest_misses", str(trial.number), trial.to_json()))

    @property
    def later_measurements(self) -> Mapping[int, Measurement]:
        """Measurements that were taken for other budgets after the run, by number of the trial."""
        found = self.notes.read("measured_later") or {}
        return {int(number): Measurement.from_json(taken) for number, taken in found.items()}

    def add_later_measurement(self, number: int, taken: Measurement) -> None:
        """Store a measurement of a trial that was taken for other budgets."""
        key = str(number)

        def add(kept: dict[str, Any] | None) -> dict[str, Any]:
            before = Measurement.from_json(kept[key]) if kept and key in kept else Measurement()
            return {**(kept or {}), key: before.with_(taken).to_json()}

        self.notes.amend("measured_later", add)

    # confirmations and looks at the holdout

    def confirmation(self, plan: Plan) -> ConfirmationNote | None:
        """The run's own confirmation of a plan, None when there is none."""
        found = (self.notes.read("confirmations") or {}).get(plan.hash)
        return None if found is None else ConfirmationNote.from_json(found)

    @property
    def confirmed_plans(self) -> Sequence[str]:
        """Hashes of the plans that the run confirmed."""
        return list(self.notes.read("confirmations") or {})

    def keep_confirmation(self, plan: Plan, note: ConfirmationNote) -> None:
        """Store a confirmation; of several for one plan the first one stands."""
        self._write_first("confirmations", plan.hash, note.to_json())

    def confirmations_for_other_budgets(self, plan: Plan) -> Sequence[ConfirmationNote]:
        """Confirmations of a plan that were made after the run for other budgets, the earliest first.

        They are kept apart: a run that is resumed must find its confirmations judged by its own budgets.
        """
        found = (self.notes.read("resolved") or {}).get(plan.hash, [])
        return [ConfirmationNote.from_json(one) for one in found]

    def add_confirmation_for_other_budgets(self, plan: Plan, note: ConfirmationNote) -> None:
        """Store a confirmation that was made for other budgets."""
        key, content = plan.hash, note.to_json()

        def add(kept: dict[str, Any] | None) -> dict[str, Any]:
            return {**(kept or {}), key: [*(kept or {}).get(key, []), content]}

        self.notes.amend("resolved", add)

    @property
    def looks(self) -> Sequence[Mapping[str, Any]]:
        """All looks at the holdout so far: `what` file was looked at, the `time`, the folder of the `run`."""
        found: Sequence[Mapping[str, Any]] = self.notes.read("looks") or []
        return found

    def spend_look(self, taken: Mapping[str, Any], known: Sequence[Mapping[str, Any]] = ()) -> int:
        """Store a look at the holdout before it is taken, and return its number in this record, from 1.

        `what` in it identifies the file: to look at the same file again tells nothing new and costs nothing. `known`
        are looks from elsewhere, which are stored first.
        """

        def add(looks: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            stored = {look["what"]: look for look in looks or []}
            for look in (*known, taken):
                stored.setdefault(look["what"], dict(look))
            return list(stored.values())

        return [look["what"] for look in self.notes.amend("looks", add)].index(taken["what"]) + 1

    # time and workers

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, over all its resumptions."""
        return float(self.notes.read("elapsed") or 0.0)

    def spend_time(self, seconds: float) -> None:
        """Store how long the run has taken so far; of several workers' figures the largest counts."""
        self.notes.amend("elapsed", lambda before: max(before or 0.0, seconds))

    def own(self) -> None:
        """Register this process as a worker of the run."""
        me = Worker.me()
        self.notes.amend("owners", lambda owners: {**_living(owners), me.key: me.to_json()})

    def release(self) -> None:
        """Remove this process from the workers of the run."""
        me = Worker.me()
        self.notes.amend("owners", lambda owners: {k: owner for k, owner in _living(owners).items() if k != me.key})

    @property
    def owners(self) -> Mapping[str, Worker]:
        """The registered workers of the run, by their key."""
        return {key: Worker.from_json(owner) for key, owner in (self.notes.read("owners") or {}).items()}

    @property
    def busy(self) -> bool:
        """True when another living process of this host works on the run."""
        return any(owner.alive for key, owner in self.owners.items() if key != Worker.me().key)

    def close(self) -> None:
        """Close the database."""
        self.notes.close()

    def _write(self, key: str, value: Any) -> None:
        self.notes.amend(key, lambda _: value)

    def _write_first(self, key: str, entry: str, value: Any) -> Any:
        """Store an entry unless another worker did so before, and return the stored one."""
        return self.notes.amend(key, lambda entries: {entry: value, **(entries or {})})[entry]


def _living(owners: Mapping[str, Any] | None) -> dict[str, Any]:
    """The workers that may still be running: those of this host that are dead are left out."""
    workers = {key: Worker.from_json(owner) for key, owner in (owners or {}).items()}
    return {key: worker.to_json() for key, worker in workers.items() if worker.alive or not worker.here}
