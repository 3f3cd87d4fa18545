"""The journal: every trial ever made, in an Optuna storage. The only module that touches the storage."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from autocompress.errors import JournalError
from autocompress.plan import Plan
from autocompress.trial import Outcome, Trial

SCHEMA = 1
HEARTBEAT_S = 10
GRACE_S = 60
STATES = {
    Outcome.MEASURED: TrialState.COMPLETE,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.REFUSED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
}


class Journal:
    """Trials and facts of one run. `url` is any database that SQLAlchemy reaches; a path means SQLite."""

    def __init__(self, location: Path | str, name: str = "autocompress") -> None:
        url = _sqlite_url(location) if isinstance(location, Path) else location
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                # the heartbeat of Optuna's storage is marked experimental; claims need one all the same
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._storage = RDBStorage(url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
            self._study = optuna.create_study(storage=self._storage, study_name=name, load_if_exists=True)
        except (SQLAlchemyError, OptunaError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise JournalError(
                f"cannot be opened ({reason}).", where=str(location), hint="Check the path, or start without --resume."
            ) from error

    def note(self, key: str, value: Any) -> None:
        """Write down a fact of the run: any JSON value."""
        self._study.set_user_attr(key, json.dumps(value, allow_nan=False))

    def noted(self, key: str) -> Any:
        """The fact, None when it was never noted."""
        text = self._study.user_attrs.get(key)
        return None if text is None else json.loads(text)

    def trials(self) -> list[Trial]:
        """All trials in the order they were claimed; those whose worker is gone are not among them."""
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
    def claim(self, plan: Plan) -> Iterator[int]:
        """The number of a new trial of this plan, claimed with a heartbeat for as long as the block runs.

        A block that is left without `finish` gives the claim back.
        """
        with warnings.catch_warnings():
            # ask() warns that a heartbeat wants optimize(); this block records it instead
            warnings.simplefilter("ignore")
            trial = self._study.ask()
        trial.set_user_attr("owner", json.dumps(_owner()))
        trial.set_user_attr("plan", json.dumps(plan.to_json()))
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(trial._trial_id, stop), daemon=True)
        beat.start()
        try:
            yield trial.number
        finally:
            stop.set()
            beat.join()
            stored = self._study.get_trials(deepcopy=False)[trial.number]
            if stored.state is TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _beat(self, trial_id: int, stop: threading.Event) -> None:
        while not stop.is_set():
            self._storage.record_heartbeat(trial_id)
            stop.wait(HEARTBEAT_S)

    def finish(self, trial: Trial) -> None:
        """Write down how a claimed trial ended.

        Its value is the worst overshoot over its limits; every budget is a constraint (positive means broken),
        and what was not measured counts as broken.
        """
        stored = self._study.get_trials(deepcopy=False)[trial.number]
        self._storage.set_trial_user_attr(stored._trial_id, "trial", json.dumps(trial.to_json(), allow_nan=False))
        if STATES[trial.outcome] is TrialState.COMPLETE and trial.verdict.overshoot != float("inf"):
            running = optuna.trial.Trial(self._study, stored._trial_id)
            for finding in trial.verdict.findings:
                broken = 1.0 if finding.value is None else finding.overshoot - 1.0
                running.set_constraint(finding.budget.metric, broken)
            self._study.tell(trial.number, trial.verdict.overshoot)
        else:
            state = STATES[trial.outcome]
            self._study.tell(trial.number, state=TrialState.FAIL if state is TrialState.COMPLETE else state)

    def release_dead_claims(self) -> int:
        """Give back the claims of workers that are gone: by heartbeat, or by process on this host. Returns how many."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        released = 0
        for stored in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = json.loads(stored.user_attrs.get("owner", "{}"))
            if owner.get("host") == socket.gethostname() and not _alive(owner):
                self._study.tell(stored.number, state=TrialState.FAIL)
                released += 1
        return released

    def spend_look(self, what: str) -> int:
        """Write down a look at the confirming part, before it is taken; its number, from 1.

        `what` identifies the file: to look at the same file again tells nothing new and costs nothing.
        """
        looks = self.noted("looks") or []
        seen = [look["what"] for look in looks]
        if what in seen:
            return seen.index(what) + 1
        looks.append({"what": what, "time": time.time()})
        self.note("looks", looks)
        return len(looks)

    def own(self) -> None:
        """Write down that this process is at work on the run."""
        self.note("owner", _owner())

    @property
    def busy(self) -> bool:
        """True when another living process of this host is at work on the run."""
        owner = self.noted("owner") or {}
        mine = owner == _owner()
        return bool(not mine and owner.get("host") == socket.gethostname() and _alive(owner))

    def release(self) -> None:
        """Write down that nobody is at work any more."""
        self.note("owner", {})

    @property
    def looks(self) -> int:
        """How often the confirming part was looked at."""
        return len(self.noted("looks") or [])

    def close(self) -> None:
        """Let go of the database."""
        self._storage.engine.dispose()


def _sqlite_url(path: Path) -> str:
    text = URL.create("sqlite", database=str(path)).render_as_string()
    # Optuna fills a template in the URL
    return text.replace("{", "{{").replace("}", "}}")


def _owner() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str:
    """When a process began, in the kernel's clock ticks: a number is given again, this is not. Empty where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # the name, in brackets, may hold spaces; the start is the 22nd field
    return stat.rpartition(")")[2].split()[19]


def _alive(owner: Mapping[str, Any]) -> bool:
    pid = int(owner.get("pid", 0))
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    return bool(_started(pid) == owner.get("started", ""))
