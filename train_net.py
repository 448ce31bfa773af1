"""Train or evaluate a detector: `python train_net.py --config CONFIG [options] key=value ...`."""

import sys

from brloss_d2.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
