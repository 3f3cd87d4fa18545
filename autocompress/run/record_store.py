"""The record in a database: trials in an Optuna storage, claims and notes in tables of their own.

Optuna's heartbeat has no effect on trials that are asked for and told one by one, and its attributes cannot be changed
in one step by several workers. So claims and notes have tables of their own, through SQLAlchemy; of Optuna only what it
documents is used.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from autocompress.core.plan import Plan
from autocompress.core.record import Record
from autocompress.core.record_stores import NoteStore, TrialStore
from autocompress.core.trial import Outcome, Trial
from autocompress.errors import RecordError
from autocompress.system.workers import Worker

STUDY = "autocompress"
HEARTBEAT_S = 10
GRACE_S = 60
# how long a worker waits for another one's write; SQLite's default of 5 seconds is short on a busy disk
BUSY_TIMEOUT_S = 60
STATES = {
    Outcome.MEASURED: TrialState.COMPLETE,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.REFUSED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}
TABLES = MetaData()
# one row per study: a worker that writes it locks out the others until its transaction ends
LOCKS = Table("autocompress_locks", TABLES, Column("study", String(200), primary_key=True), Column("count", Integer))
NOTES = Table(
    "autocompress_notes",
    TABLES,
    Column("study", String(200), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("value", Text),
)
CLAIMS = Table(
    "autocompress_claims",
    TABLES,
    Column("study", String(200), primary_key=True),
    Column("plan_hash", String(64), primary_key=True),
    Column("owner", Text),
    Column("trial", Integer),
    Column("heartbeat", Float),
    Column("ended", Boolean),
)


def open_record(location: Path | str, study: str = STUDY) -> Record:
    """Open the record at `location`: a path for SQLite, or any database URL that SQLAlchemy can open.

    Raises:
        RecordError: when it cannot be opened, or an earlier version of autocompress wrote it.
    """
    url = _sqlite_url(location) if isinstance(location, Path) else location
    arguments = {"timeout": BUSY_TIMEOUT_S} if url.startswith("sqlite") else {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        engine = create_engine(url, connect_args=arguments)
        tables = inspect(engine)
        if tables.has_table("studies") and not tables.has_table(NOTES.name):
            raise RecordError(
                "was written by an earlier version of autocompress.",
                where=str(location),
                hint="Choose another folder with --out, or run it again with this version.",
            )
        # tables of our own first: a database that holds Optuna's alone is one of an earlier version
        with engine.begin() as connection:
            for table in TABLES.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
        # Optuna treats the URL as a format template, so braces are doubled
        storage = RDBStorage(url.replace("{", "{{").replace("}", "}}"), engine_kwargs={"connect_args": arguments})
        found = optuna.create_study(storage=storage, study_name=study, load_if_exists=True)
        database = _Database(engine, study)
        with database.alone():
            pass
    except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(
            f"cannot be opened ({reason}).", where=str(location), hint="Check the path, or start without --resume."
        ) from error
    return Record(OptunaTrials(found, storage, database), DatabaseNotes(database, storage))


class _Database:
    """The database tables of one study."""

    def __init__(self, engine: Engine, study: str) -> None:
        self.engine = engine
        self.study = study

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """An exclusive transaction: what is read in it stays true until it is written.

        It begins with a write to the study's row, which locks the row where the database locks rows and the whole
        file in SQLite. Optuna's own writes use other connections and would wait for it for ever.
        """
        mine = LOCKS.c.study == self.study
        with self.engine.begin() as connection:
            written = connection.execute(update(LOCKS).where(mine).values(count=LOCKS.c.count + 1))
            if not written.rowcount:
                connection.execute(insert(LOCKS).values(study=self.study, count=1))
            yield connection


class DatabaseNotes(NoteStore):
    """The note store, in a table of its own."""

    def __init__(self, database: _Database, storage: RDBStorage) -> None:
        self._database = database
        self._storage = storage

    def read(self, key: str) -> Any:
        """See `NoteStore.read`."""
        with self._database.engine.connect() as connection:
            return self._read(connection, key)

    def amend(self, key: str, change: Callable[[Any], Any]) -> Any:
        """See `NoteStore.amend`."""
        with self._database.alone() as connection:
            value = change(self._read(connection, key))
            content = json.dumps(value, allow_nan=False)
            connection.execute(delete(NOTES).where(self._is(key)))
            connection.execute(insert(NOTES).values(study=self._database.study, key=key, value=content))
        return value

    def _read(self, connection: Connection, key: str) -> Any:
        text = connection.execute(select(NOTES.c.value).where(self._is(key))).scalar()
        return None if text is None else json.loads(text)

    def _is(self, key: str) -> Any:
        return (NOTES.c.study == self._database.study) & (NOTES.c.key == key)

    def close(self) -> None:
        """See `NoteStore.close`."""
        self._database.engine.dispose()
        self._storage.engine.dispose()


class OptunaTrials(TrialStore):
    """The trial store: trials in an Optuna study, claims in a table of their own.

    A claim is a row by the plan's hash, with its owner, a heartbeat and the number of its trial. It is removed when the
    claim is given back and marked as ended when the trial has ended, so that a plan is never done twice.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage, database: _Database) -> None:
        self._study = study
        self._storage = storage
        self._database = database
        # Optuna's handles of the trials that this process has claimed; a trial can only be written through its handle
        self._handles: dict[int, optuna.Trial] = {}

    def trials(self) -> list[Trial]:
        """See `TrialStore.trials`."""
        restored = (_restored(stored) for stored in self._study.get_trials(deepcopy=False))
        return [trial for trial in restored if trial is not None]

    @contextmanager
    def claim(self, plan: Plan) -> Iterator[int | None]:
        """See `TrialStore.claim`; a heartbeat is written every ten seconds."""
        if not self._take(plan):
            yield None
            return
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(plan, stop), daemon=True)
        number = None
        try:
            handle = self._study.ask()
            number = handle.number
            with self._database.alone() as connection:
                connection.execute(update(CLAIMS).where(self._is_mine(plan)).values(trial=number))
            handle.set_user_attr("plan", json.dumps(plan.to_json()))
            self._handles[number] = handle
            beat.start()
            yield number
        finally:
            stop.set()
            if beat.ident is not None:
                beat.join()
            self._give_back(plan, number)

    def _take(self, plan: Plan) -> bool:
        """Insert a claim on the plan; False when the plan is claimed or ended already."""
        with self._database.alone() as connection:
            if connection.execute(select(CLAIMS.c.plan_hash).where(self._is(plan))).first() is not None:
                return False
            row = {"study": self._database.study, "plan_hash": plan.hash, "owner": _me(), "ended": False}
            connection.execute(insert(CLAIMS).values(**row, heartbeat=time.time()))
        return True

    def _beat(self, plan: Plan, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_S):
            # a heartbeat may be missed while the database is busy or unavailable; the next one makes up for it
            with suppress(SQLAlchemyError), self._database.alone() as connection:
                connection.execute(update(CLAIMS).where(self._is_mine(plan)).values(heartbeat=time.time()))

    def _give_back(self, plan: Plan, number: int | None) -> None:
        """Remove a claim whose trial has not ended."""
        with self._database.alone() as connection:
            # a plan that was given to another worker meanwhile stays with that one
            mine = self._is_mine(plan) & (CLAIMS.c.ended.is_(False))
            if number is not None:
                mine &= CLAIMS.c.trial == number
            connection.execute(delete(CLAIMS).where(mine))
        if number is not None:
            self._handles.pop(number, None)
            self._abandon(number)

    def _abandon(self, number: int) -> None:
        if self._stored(number).state is TrialState.RUNNING:
            with suppress(UpdateFinishedTrialError):
                self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def finish(self, trial: Trial) -> None:
        """See `TrialStore.finish`.

        Optuna gets the worst overshoot over its limits as a trial's value; every budget is a constraint (positive means
        broken), and what was not measured counts as broken.
        """
        with self._database.alone() as connection:
            # after a delay beyond the grace period another worker may have the plan, and its result counts
            mine = self._of_trial(trial.number) & (CLAIMS.c.owner == _me())
            if connection.execute(select(CLAIMS.c.trial).where(mine)).first() is None:
                return
        handle = self._handles[trial.number]
        try:
            for finding in trial.verdict.findings if _is_complete(trial) else ():
                broken = 1.0 if finding.value is None else finding.overshoot - 1.0
                handle.set_constraint(finding.name, broken)
            # written last, so that a trial with this attribute is complete
            handle.set_user_attr("trial", json.dumps(trial.to_json(), allow_nan=False))
        except UpdateFinishedTrialError:
            return
        self._end(trial)

    def _end(self, trial: Trial) -> None:
        """Tell Optuna the outcome of a trial that is already stored, and mark its claim as ended."""
        with suppress(UpdateFinishedTrialError):
            if _is_complete(trial):
                self._study.tell(trial.number, trial.verdict.overshoot, skip_if_finished=True)
            else:
                state = STATES[trial.outcome]
                state = TrialState.FAIL if state is TrialState.COMPLETE else state
                self._study.tell(trial.number, state=state, skip_if_finished=True)
        with self._database.alone() as connection:
            connection.execute(update(CLAIMS).where(self._of_trial(trial.number)).values(ended=True))

    def release_dead_claims(self) -> int:
        """See `TrialStore.release_dead_claims`.

        A worker is gone when its process on this host is, or when it has not written a heartbeat for a minute.
        """
        open_ones = (CLAIMS.c.study == self._database.study) & (CLAIMS.c.ended.is_(False))
        given_back: list[int | None] = []
        written: list[Trial] = []
        with self._database.alone() as connection:
            for row in connection.execute(select(CLAIMS).where(open_ones)).all():
                owner = Worker.from_json(json.loads(row.owner))
                stale = time.time() - row.heartbeat > GRACE_S
                if not stale and (owner.alive or not owner.here):
                    continue
                ended = None if row.trial is None else _restored(self._stored(row.trial))
                if ended is not None and ended.outcome is not Outcome.CLAIMED:
                    written.append(ended)
                else:
                    given_back.append(row.trial)
                    same = open_ones & (CLAIMS.c.plan_hash == row.plan_hash)
                    connection.execute(delete(CLAIMS).where(same))
        for trial in written:
            self._end(trial)
        for number in given_back:
            if number is not None:
                self._abandon(number)
        return len(given_back)

    def _stored(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _is(self, plan: Plan) -> Any:
        return (CLAIMS.c.study == self._database.study) & (CLAIMS.c.plan_hash == plan.hash)

    def _of_trial(self, number: int) -> Any:
        # not by the plan, which may have been changed while it was trained
        return (CLAIMS.c.study == self._database.study) & (CLAIMS.c.trial == number)

    def _is_mine(self, plan: Plan) -> Any:
        return self._is(plan) & (CLAIMS.c.owner == _me())


def _me() -> str:
    return json.dumps(Worker.me().to_json())


def _restored(stored: FrozenTrial) -> Trial | None:
    if "trial" in stored.user_attrs:
        return Trial.from_json(stored.number, json.loads(stored.user_attrs["trial"]))
    if stored.state is TrialState.RUNNING and "plan" in stored.user_attrs:
        plan = Plan.from_json(json.loads(stored.user_attrs["plan"]), where=f"trial {stored.number}")
        return Trial(stored.number, plan, Outcome.CLAIMED)
    return None


def _is_complete(trial: Trial) -> bool:
    return STATES[trial.outcome] is TrialState.COMPLETE and trial.verdict.overshoot != float("inf")


def _sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()
