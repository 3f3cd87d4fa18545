"""The ledger of looks: every look of this user at a holdout, over all runs and folders.

It lies in `$AUTOCOMPRESS_STATE/looks`, else in `autocompress/looks` below `$XDG_STATE_HOME` or `~/.local/state`; `off`
disables it. There is a file for each holdout, named by the hash of its items, with a line of JSON for each file that
was looked at. Lines are only ever appended. A line that cannot be read counts as a look at an unknown file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.errors import UsageError
from autocompress.system.locks import folder_lock
from autocompress.system.workspace import make_folder

VARIABLE = "AUTOCOMPRESS_STATE"
SUFFIX = ".jsonl"

Look = Mapping[str, Any]


def folder() -> Path | None:
    """The ledger's folder, None when it is off.

    Raises:
        UsageError: when the user has no home folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen == "off" else Path(chosen) / "looks"
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "autocompress" / "looks"
    try:
        return Path.home() / ".local" / "state" / "autocompress" / "looks"
    except RuntimeError as error:
        raise UsageError(f"has no place ({error}).", where="ledger of looks", hint=f"Set {VARIABLE}.") from error


def look(what: str, run: Path) -> dict[str, Any]:
    """A look taken now at a file, which `what` identifies, by the run in this folder."""
    return {"what": what, "time": time.time(), "run": str(run.absolute())}


def spend(place: Path, holdout: str, taken: Look, known: Sequence[Look] = ()) -> list[Look]:
    """Write a look at a holdout down before it is taken, and return all looks at it, in order.

    `holdout` is the hash of its items. A file that was looked at before is not written again. `known` are looks that
    the run's own record holds: those missing here, because the folder comes from elsewhere, are written first.

    Raises:
        UsageError: when the ledger cannot be read or written.
    """
    make_folder(place)
    path = place / f"{holdout}{SUFFIX}"
    # no look may get a number that another process gets at the same moment
    with folder_lock(place):
        looks = _read(path)
        files = {one["what"] for one in looks}
        missing: dict[str, Look] = {}
        for one in (*known, taken):
            if one["what"] not in files:
                missing.setdefault(one["what"], one)
        _append(path, list(missing.values()))
    return [*looks, *missing.values()]


def looks_at(place: Path, holdout: str) -> list[Look]:
    """All looks at a holdout so far, in order.

    Raises:
        UsageError: when the ledger cannot be read.
    """
    return _read(place / f"{holdout}{SUFFIX}")


def _read(path: Path) -> list[Look]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error}).", where=str(path)) from error
    return [_parsed(line, place) for place, line in enumerate(lines) if line.strip()]


def _parsed(line: bytes, place: int) -> Look:
    try:
        found = json.loads(line)
        if isinstance(found["what"], str):
            return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    # somebody looked, at what is not known
    return {"what": f"unreadable line {place}", "time": 0.0, "run": ""}


def _append(path: Path, looks: Sequence[Look]) -> None:
    """Append lines in one write and see them to the disk; one that was cut off before is ended first."""
    if not looks:
        return
    text = "".join(json.dumps(dict(one)) + "\n" for one in looks).encode()
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.fstat(handle).st_size:
                os.lseek(handle, -1, os.SEEK_END)
                if os.read(handle, 1) != b"\n":
                    text = b"\n" + text
            written = os.write(handle, text)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror or error}).", where=str(path)) from error
    if written != len(text):
        raise UsageError("could not be written whole (is the disk full?).", where=str(path))
