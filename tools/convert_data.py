"""Say what a folder of labels contains; write it as COCO. This is the program `brloss-data`."""

import sys

from brloss_d2.cli.data import main

if __name__ == "__main__":
    sys.exit(main())
