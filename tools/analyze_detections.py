"""Analyze the detections of an evaluated run. This is the program `brloss-analyze`."""

import sys

from brloss_d2.cli.analyze import main

if __name__ == "__main__":
    sys.exit(main())
