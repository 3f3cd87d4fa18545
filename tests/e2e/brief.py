"""The command line with brief measurements and frequent checkpoints, started as a program of its own."""

import os

import torch

from autocompress import recovery, shaping
from autocompress.cli import main
from autocompress.devices import alternation
from autocompress.planner import probing, training, whole_probing

torch.set_num_threads(1)
recovery.CHECKPOINT_SECONDS = 0.3
alternation.WARM_UP_SECONDS = 0.05
probing.PROBE_SECONDS = 0.15
whole_probing.PROBE_SECONDS = 0.2
shaping.MEASURE_SECONDS = 1.0
training.LEAST_STEPS = int(os.environ.get("BRIEF_STEPS", "40"))
training.FIRST_EPOCHS = 1

if __name__ == "__main__":
    main()
