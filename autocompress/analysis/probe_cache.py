"""A cache of probe results for the user, keyed by everything that the measurements depend on.

The files are in `$AUTOCOMPRESS_CACHE`, else in `autocompress` below `$XDG_CACHE_HOME` or `~/.cache`; `off` disables
the cache. A file that cannot be read counts as missing.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autocompress.core.machine import Machine
from autocompress.core.profile import Profile
from autocompress.errors import UsageError
from autocompress.system.workspace import make_folder, read_json, write_json

VARIABLE = "AUTOCOMPRESS_CACHE"


def folder() -> Path | None:
    """The cache folder, None when the cache is off."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return None if chosen == "off" else Path(chosen) / "probes"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "autocompress" / "probes"


def key_of(machine: Machine, versions: Mapping[str, str], profile: Profile, probed: Any) -> str:
    """The cache key of `probed`, together with everything else that its times depend on."""
    content = {
        "device": machine.fingerprint,
        "versions": dict(versions),
        "threads": profile.runtime.threads,
        "options": dict(profile.runtime.options),
        "batch": profile.protocol.batch,
        "probed": probed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def read(key: str) -> dict[str, Any] | None:
    """The cached content for a key, with the `date` when it was measured; None when there is none."""
    place = folder()
    if place is None or not (place / f"{key}.json").exists():
        return None
    try:
        found = read_json(place / f"{key}.json")
    except UsageError:
        # damaged: it is measured and written again
        return None
    return found if isinstance(found, dict) and "date" in found else None


def write(key: str, content: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Store what was measured; a failure to write is only reported to `tell`, as the cache is optional."""
    place = folder()
    if place is None:
        return
    try:
        make_folder(place)
        write_json(place / f"{key}.json", {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **content})
    except UsageError as error:
        tell(f"probes are not kept: {error}")
