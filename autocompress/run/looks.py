"""Numbers the looks at a holdout: by the user's ledger, and by the run's own record at least."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.data.repeated_items import examine
from autocompress.errors import UsageError
from autocompress.evaluation.run import Run
from autocompress.run import ledger

# earlier runs that a sentence names
NAMED = 3
ONLY_HERE = "looks at these items that were taken in other folders are not counted."


@dataclass(frozen=True, eq=False)
class SpentLook:
    """A look that was written down.

    Args:
        number: its place among all looks at this holdout, from 1.
        earlier: the looks before it: `what` was looked at, `time`, and the folder of the `run`.
        warning: a sentence where it does not stand in the ledger; empty where it does.
    """

    number: int
    earlier: Sequence[Mapping[str, Any]]
    warning: str


def spend_look(run: Run, artifact: Artifact) -> SpentLook:
    """Write a look at the holdout down before it is taken: in the user's ledger and in the run's record.

    Its number is the larger of its places in the two. Without a ledger the record's place is the number, and a warning
    says so. A file that was looked at before keeps its place. Without a holdout, where only size and time are
    confirmed, the record counts alone.
    """
    taken = ledger.look(artifact.hash, run.workspace.root)
    holdout = run.task is not None and run.task.holdout is not None
    known, warning = _in_ledger(run, taken) if holdout else ([], "")
    run.record.spend_look(taken, known)
    lists = [known, run.record.looks]
    places = [[one["what"] for one in looks].index(artifact.hash) if looks else 0 for looks in lists]
    longest = lists[places.index(max(places))]
    return SpentLook(max(places) + 1, [dict(one) for one in longest[: max(places)]], warning)


def _in_ledger(run: Run, taken: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str]:
    """All looks in the ledger after this one was written, and a warning where that could not be done."""
    try:
        place = ledger.folder()
        if place is None:
            return [], f"The ledger of looks is off ({ledger.VARIABLE}=off): {ONLY_HERE}"
        return ledger.spend(place, _holdout_hash(run), taken, run.record.looks), ""
    except UsageError as error:
        return [], f"The ledger of looks cannot be kept ({error.where} {error.message.rstrip('.')}): {ONLY_HERE}"


def _holdout_hash(run: Run) -> str:
    assert run.task is not None
    return run.data_check.holdout_hash or examine(run.task, seconds=0.0).holdout_hash


def looks_elsewhere(holdout: str) -> Sequence[Mapping[str, Any]]:
    """The looks at a holdout in the user's ledger; none where there is no ledger that can be read."""
    try:
        place = ledger.folder()
        return [] if place is None or not holdout else ledger.looks_at(place, holdout)
    except UsageError:
        # the warning comes with the look, which is counted by the record
        return []


def look_sentences(certificate: Mapping[str, Any] | None) -> list[str]:
    """What a user should know of a certificate's look: who looked before, and whether all are counted."""
    if certificate is None or not certificate["look"]:
        return []
    found = []
    earlier = certificate.get("earlier_looks", ())
    if earlier:
        named = list(dict.fromkeys(_by(one) for one in reversed(earlier)))
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        found.append(
            f"This was look {certificate['look']} at these holdout items, so less error probability was left for it; "
            f"before it: {', '.join(named[:NAMED])}{more}."
        )
    warning = certificate.get("looks_warning", "")
    return [*found, warning] if warning else found


def _by(one: Mapping[str, Any]) -> str:
    when = datetime.datetime.fromtimestamp(float(one["time"]), datetime.UTC).date().isoformat() if one["time"] else ""
    run = one.get("run") or "a run that is not known"
    return f"{run} on {when}" if when else str(run)
