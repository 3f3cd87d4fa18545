"""Probes that were measured before: kept for the user, by everything that they depend on.

They lie in `$AUTOCOMPRESS_CACHE`, else in `autocompress` below `$XDG_CACHE_HOME` or `~/.cache`; `off` keeps none.
A file that cannot be read counts as not there.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from autocompress.errors import UsageError
from autocompress.probes import ChainProbe, Probe
from autocompress.workspace import make_folder, read_json, write_json

VARIABLE = "AUTOCOMPRESS_CACHE"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@dataclass(frozen=True)
class Known:
    """What was measured, and when."""

    probes: tuple[Probe, ...]
    chains: ChainProbe
    date: str = field(default_factory=_today)


def folder() -> Path | None:
    """Where probes are kept, None where they are not."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen == "off" else Path(chosen) / "probes"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "autocompress" / "probes"


def read(key: str) -> Known | None:
    """What is known under the key."""
    place = folder()
    if place is None or not (place / f"{key}.json").exists():
        return None
    try:
        data = read_json(place / f"{key}.json")
        probes = tuple(Probe.from_json(probe) for probe in data["probes"])
        return Known(probes, ChainProbe(**data["chains"]), str(data["date"]))
    except (UsageError, KeyError, TypeError, AttributeError):
        # damaged, or of another version: it is measured and written anew
        return None


def write(key: str, known: Known, said: Callable[[str], None]) -> None:
    """Keep what was measured; where that is not possible `said` hears of it, since a run can do without."""
    place = folder()
    if place is None:
        return
    content = {
        "date": known.date,
        "probes": [probe.to_json() for probe in known.probes],
        "chains": vars(known.chains),
    }
    try:
        make_folder(place)
        write_json(place / f"{key}.json", content)
    except UsageError as error:
        said(f"probes are not kept: {error}")
