"""Describe the environment for a bug report. This is the program `brloss-env`."""

import sys

from brloss_d2.cli.env import main

if __name__ == "__main__":
    sys.exit(main())
