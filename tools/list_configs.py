"""List the packaged configs, or show the recipe of one. This is the program `brloss-configs`."""

import sys

from brloss_d2.cli.configs import main

if __name__ == "__main__":
    sys.exit(main())
