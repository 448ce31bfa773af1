"""Detect objects in images. This is the program `brloss-predict`."""

import sys

from brloss_d2.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
