"""Scripts run in a Python process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from autocompress import errors


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a new Python process that finds this package and all that this process finds."""
    places = [str(Path(errors.__file__).parents[1]), *(place for place in sys.path if place)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **more}


def python_process(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python process of its own, and return the completed process."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=child_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_python(script: str, *arguments: object, **environment: str) -> str:
    """Run a script in a Python process of its own, and return what it prints."""
    done = python_process(script, *arguments, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
