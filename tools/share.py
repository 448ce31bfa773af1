"""Write a trained model as a folder to give away. This is the program `brloss-share`."""

import sys

from brloss_d2.cli.share import main

if __name__ == "__main__":
    sys.exit(main())
