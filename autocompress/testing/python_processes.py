"""Scripts run in a Python process of their own."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from autocompress import errors

# sends back the exit code, output and errors of each script that it reads
FORKING = """
import json, os, sys, tempfile, traceback
import autocompress.testing.finish_technique_suite, autocompress.testing.model_technique_suite

for line in sys.stdin:
    script, *arguments = json.loads(line)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv = ["-c", *arguments]
            code = 1
            try:
                exec(script, {"__name__": "__main__"})
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode())
    print(json.dumps([code, *texts]), flush=True)
"""


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


def run_elsewhere(script: str, *arguments: object) -> str:
    """Run a script in another process, with a hash seed of its own, and return what it prints.

    All are forked from one interpreter that has imported this package, which takes longer than most of the scripts.
    """
    if not hasattr(os, "fork"):
        return run_python(script, *arguments, PYTHONHASHSEED="42")
    interpreter = _interpreter()
    assert interpreter.stdin is not None
    assert interpreter.stdout is not None
    print(json.dumps([script, *map(str, arguments)]), file=interpreter.stdin, flush=True)
    code, said, errors_said = json.loads(interpreter.stdout.readline())
    assert code == 0, errors_said[-3000:]
    return str(said).strip()


@functools.cache
def _interpreter() -> subprocess.Popen[str]:
    """The interpreter that is forked; it ends with this process, which ends its input."""
    return subprocess.Popen(
        [sys.executable, "-c", FORKING],
        env=child_environment(PYTHONHASHSEED="42"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
