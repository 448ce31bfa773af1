"""Train or evaluate a detector. This is the program `brloss-train`."""

import sys

from brloss_d2.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
