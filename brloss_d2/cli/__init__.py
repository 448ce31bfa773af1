"""Command-line programs: one module per program, each with `main(argv=None) -> int`.

`brloss-NAME` of an installed package and the script of a clone (`train_net.py`, `demo/demo.py`,
`tools/*.py`) call the same `main`, which returns the exit status. These modules import torch and
detectron2 only after the arguments have been parsed, so that `--help` is fast.
"""

import os

# Before torch starts its threads: idle ones that spin slow each other down if other programs need
# the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
