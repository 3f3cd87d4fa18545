"""The command line with every training cut ten steps before its end, and killed once after a cut where that is asked.

`KILLED_BY` names a file that says that it was killed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from e2e import brief

from autocompress.cli.commands import main
from autocompress.training import recovery
from autocompress.training.checkpoints import RecoveryState
from autocompress.training.pace import Pace

# steps that are left when the schedule is cut, and that are taken from then on
LEFT, INSTEAD, KILLED_AFTER = 20, 10, 4
save = RecoveryState.save


def steps_left(_pace: Pace, steps: int, _scores: int) -> int | None:
    return INSTEAD if steps == LEFT else None


def save_and_die(state: RecoveryState, path: Path) -> None:
    save(state, path)
    marker = os.environ.get("KILLED_BY")
    cuts = state.schedule.cuts
    if marker and cuts and state.step >= cuts[0][0] + KILLED_AFTER and not Path(marker).exists():
        Path(marker).write_text(f"{path} step {state.step}", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    assert brief.__name__
    recovery.CHECKPOINT_SECONDS = 0.0
    Pace.steps_left = steps_left  # type: ignore[method-assign]
    RecoveryState.save = save_and_die  # type: ignore[method-assign]
    main()
