"""The command line with brief measurements and frequent checkpoints, started as a program of its own."""

import os

import torch

from autocompress import techniques
from autocompress.analysis import layer_probes as probing
from autocompress.analysis import model_probes as whole_probing
from autocompress.cli.commands import main
from autocompress.devices import alternation
from autocompress.structure import measuring
from autocompress.training import cost as training
from autocompress.training import recovery

torch.set_num_threads(1)
# weights of few values would make the structures needless that these tests interrupt
techniques.TECHNIQUES = tuple(one for one in techniques.TECHNIQUES if one.name not in ("palettes", "palette_training"))
recovery.CHECKPOINT_SECONDS = 0.3
alternation.WARM_UP_SECONDS = 0.05
probing.PROBE_SECONDS = 0.15
whole_probing.PROBE_SECONDS = 0.2
measuring.MEASURE_SECONDS = 1.0
training.LEAST_STEPS = int(os.environ.get("BRIEF_STEPS", "40"))
training.FIRST_EPOCHS = 1
# rates are those that every run without a range test has
training.RANGE_SECONDS = 0.0

if __name__ == "__main__":
    main()
