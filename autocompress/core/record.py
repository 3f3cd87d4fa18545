"""The journal: every trial ever made, in an Optuna storage. The only module that touches the storage."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Connection, column, delete, insert, select, table, update
from sqlalchemy.exc import SQLAlchemyError

from autocompress.core.plan import Plan
from autocompress.core.trial import Outcome, Trial
from autocompress.errors import JournalError
from autocompress.system.workers import Worker

SCHEMA = 2
HEARTBEAT_S = 10
GRACE_S = 60
# how long a worker waits for another that writes; SQLite's own 5 seconds are short on a busy disk
BUSY_TIMEOUT_S = 60
STATES = {
    Outcome.MEASURED: TrialState.COMPLETE,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.REFUSED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}
# what is read and written inside transactions of our own
STUDIES = table("studies", column("study_id"), column("study_name"))
NOTES = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))
TRIALS = table("trials", column("trial_id"), column("study_id"), column("state"))
FACTS = table("trial_user_attributes", column("trial_id"), column("key"), column("value_json"))


class Journal:
    """Trials and facts of one run. `url` is any database that SQLAlchemy reaches; a path means SQLite."""

    def __init__(self, location: Path | str, name: str = "autocompress") -> None:
        url = _sqlite_url(location) if isinstance(location, Path) else location
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                # the heartbeat of Optuna's storage is marked experimental; claims need one all the same
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._storage = RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT_S}} if url.startswith("sqlite") else None,
                    heartbeat_interval=HEARTBEAT_S,
                    grace_period=GRACE_S,
                )
            self._study = optuna.create_study(storage=self._storage, study_name=name, load_if_exists=True)
        except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise JournalError(
                f"cannot be opened ({reason}).", where=str(location), hint="Check the path, or start without --resume."
            ) from error

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction that no other worker's runs beside: what is read in it stays true until it is written.

        It begins with a write to the study's row, which locks the row where the database locks rows and the whole
        file in SQLite. Optuna's own calls use other connections and would wait for it for ever.
        """
        with self._storage.engine.begin() as connection:
            mine = STUDIES.c.study_id == self._study._study_id
            connection.execute(update(STUDIES).where(mine).values(study_name=self._study.study_name))
            yield connection

    def note(self, key: str, value: Any) -> None:
        """Write down a fact of the run: any JSON value."""
        self.amend(key, lambda _: value)

    def note_first(self, key: str, entry: str, value: Any) -> Any:
        """Write down an entry of the fact `key` unless another worker did so before; the one that stands now."""

        def add(entries: dict[str, Any] | None) -> dict[str, Any]:
            return {entry: value, **(entries or {})}

        return self.amend(key, add)[entry]

    def amend(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace a fact by what `change` makes of it (of None when it was never noted), as one step.

        `change` uses nothing of this journal. The fact as it is now is returned.
        """
        of_key = (NOTES.c.study_id == self._study._study_id) & (NOTES.c.key == key)
        with self._alone() as connection:
            text = connection.execute(select(NOTES.c.value_json).where(of_key)).scalar()
            value = change(None if text is None else json.loads(json.loads(text)))
            # Optuna keeps attributes as JSON, and ours are JSON texts
            content = json.dumps(json.dumps(value, allow_nan=False))
            connection.execute(delete(NOTES).where(of_key))
            connection.execute(insert(NOTES).values(study_id=self._study._study_id, key=key, value_json=content))
        return value

    def noted(self, key: str) -> Any:
        """The fact, None when it was never noted."""
        text = self._study.user_attrs.get(key)
        return None if text is None else json.loads(text)

    def trials(self) -> list[Trial]:
        """All trials in the order they were claimed; claims that were given back are not among them."""
        found = []
        for stored in self._study.get_trials(deepcopy=False):
            trial = self._restore(stored)
            if trial is not None:
                found.append(trial)
        return found

    def _restore(self, stored: FrozenTrial) -> Trial | None:
        if "trial" in stored.user_attrs:
            return Trial.from_json(stored.number, json.loads(stored.user_attrs["trial"]))
        if stored.state is TrialState.RUNNING and "plan" in stored.user_attrs:
            plan = Plan.from_json(json.loads(stored.user_attrs["plan"]), where=f"trial {stored.number}")
            return Trial(stored.number, plan, Outcome.CLAIMED)
        return None

    @contextmanager
    def claim(self, plan: Plan) -> Iterator[int | None]:
        """The number of a new trial of this plan, claimed with a heartbeat for as long as the block runs.

        None when another worker has claimed or finished the plan in the meantime. A block that is left without
        `finish` gives the claim back.
        """
        with warnings.catch_warnings():
            # ask() warns that a heartbeat wants optimize(); this block records it instead
            warnings.simplefilter("ignore")
            trial = self._study.ask()
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(trial._trial_id, stop), daemon=True)
        try:
            if not self._take(plan, trial._trial_id):
                yield None
                return
            beat.start()
            yield trial.number
        finally:
            stop.set()
            if beat.ident is not None:
                beat.join()
            self._give_back(trial.number)

    def _take(self, plan: Plan, trial_id: int) -> bool:
        """Write down whose trial of which plan it is, unless the plan is taken."""
        same = (FACTS.c.key == "plan_hash") & (FACTS.c.value_json == json.dumps(plan.hash))
        ours = (TRIALS.c.study_id == self._study._study_id) & (TRIALS.c.trial_id == FACTS.c.trial_id)
        ended = select(FACTS.c.trial_id).where(FACTS.c.key == "trial")
        under_way = (TRIALS.c.state == TrialState.RUNNING.name) | TRIALS.c.trial_id.in_(ended)
        facts = {"plan": json.dumps(plan.to_json()), "owner": json.dumps(Worker.me().to_json()), "plan_hash": plan.hash}
        with self._alone() as connection:
            if connection.execute(select(TRIALS.c.trial_id).where(same & ours & under_way)).first() is not None:
                return False
            rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(fact)} for key, fact in facts.items()]
            connection.execute(insert(FACTS), rows)
        return True

    def _give_back(self, number: int) -> None:
        stored = self._study.get_trials(deepcopy=False)[number]
        if stored.state is TrialState.RUNNING:
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _beat(self, trial_id: int, stop: threading.Event) -> None:
        while not stop.is_set():
            # one that is missed because the database is busy or gone for a moment is made up for by the next
            with suppress(OptunaError, SQLAlchemyError):
                self._storage.record_heartbeat(trial_id)
            stop.wait(HEARTBEAT_S)

    def finish(self, trial: Trial) -> None:
        """Write down how a claimed trial ended.

        Its value is the worst overshoot over its limits; every budget is a constraint (positive means broken),
        and what was not measured counts as broken.
        """
        stored = self._study.get_trials(deepcopy=False)[trial.number]
        try:
            self._storage.set_trial_user_attr(stored._trial_id, "trial", json.dumps(trial.to_json(), allow_nan=False))
            self._settle(trial, stored)
        except UpdateFinishedTrialError:
            # this process was held up for so long that its claim was given to another, whose result will count
            return

    def _settle(self, trial: Trial, stored: FrozenTrial) -> None:
        if STATES[trial.outcome] is TrialState.COMPLETE and trial.verdict.overshoot != float("inf"):
            running = optuna.trial.Trial(self._study, stored._trial_id)
            for finding in trial.verdict.findings:
                broken = 1.0 if finding.value is None else finding.overshoot - 1.0
                running.set_constraint(finding.budget.metric, broken)
            self._study.tell(trial.number, trial.verdict.overshoot, skip_if_finished=True)
        else:
            state = STATES[trial.outcome]
            state = TrialState.FAIL if state is TrialState.COMPLETE else state
            self._study.tell(trial.number, state=state, skip_if_finished=True)

    def release_dead_claims(self) -> int:
        """Give back the claims of workers that are gone: by heartbeat, or by process on this host. Returns how many.

        What a worker wrote down before it was killed stands: such a trial is no claim any more.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        released = 0
        for stored in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = Worker.from_json(json.loads(stored.user_attrs.get("owner", "{}")))
            if not owner.here or owner.alive:
                continue
            trial = self._restore(stored)
            if trial is None or trial.outcome is Outcome.CLAIMED:
                self._give_back(stored.number)
                released += 1
            else:
                # two workers may find it at once
                with suppress(UpdateFinishedTrialError):
                    self._settle(trial, stored)
        return released

    def spend_look(self, what: str) -> int:
        """Write down a look at the holdout, before it is taken; its number, from 1.

        `what` identifies the file: to look at the same file again tells nothing new and costs nothing.
        """

        def add(looks: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            looks = looks or []
            known = any(look["what"] == what for look in looks)
            return looks if known else [*looks, {"what": what, "time": time.time()}]

        return [look["what"] for look in self.amend("looks", add)].index(what) + 1

    def spend_time(self, seconds: float) -> None:
        """Write down how long the run has taken so far; of what several workers say, the most counts."""
        self.amend("elapsed", lambda before: max(before or 0.0, seconds))

    def own(self) -> None:
        """Write down that this process is at work on the run."""
        me = Worker.me()
        self.amend("owners", lambda owners: {**_living(owners), me.key: me.to_json()})

    @property
    def busy(self) -> bool:
        """True when another living process of this host is at work on the run."""
        return any(Worker.from_json(owner).alive for key, owner in self._owners.items() if key != Worker.me().key)

    @property
    def _owners(self) -> dict[str, Any]:
        return self.noted("owners") or {}

    def release(self) -> None:
        """Write down that this process is no longer at work."""
        me = Worker.me()
        self.amend("owners", lambda owners: {k: owner for k, owner in _living(owners).items() if k != me.key})

    @property
    def looks(self) -> int:
        """How often the holdout was looked at."""
        return len(self.noted("looks") or [])

    def close(self) -> None:
        """Let go of the database."""
        self._storage.engine.dispose()


def _sqlite_url(path: Path) -> str:
    text = URL.create("sqlite", database=str(path)).render_as_string()
    # Optuna fills a template in the URL
    return text.replace("{", "{{").replace("}", "}}")


def _living(owners: dict[str, Any] | None) -> dict[str, Any]:
    """Those that may still be at work: the dead of this host are left out."""
    workers = {key: Worker.from_json(owner) for key, owner in (owners or {}).items()}
    return {key: worker.to_json() for key, worker in workers.items() if worker.alive or not worker.here}
