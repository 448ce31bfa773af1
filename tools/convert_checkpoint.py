"""Convert checkpoints from and to mmdetection. This is the program `brloss-convert`."""

import sys

from brloss_d2.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
