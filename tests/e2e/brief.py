"""The command line with brief measurements and frequent checkpoints, started as a program of its own."""

import os

import torch

from autocompress import recovery
from autocompress.cli import main
from autocompress.devices import alternation
from autocompress.planner import probing, training

torch.set_num_threads(1)
recovery.CHECKPOINT_SECONDS = 0.3
alternation.WARM_UP_SECONDS = 0.05
probing.PROBE_SECONDS = 0.15
training.LEAST_STEPS = int(os.environ.get("BRIEF_STEPS", "40"))
training.FIRST_EPOCHS = 1

if __name__ == "__main__":
    main()
