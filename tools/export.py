"""Write a detector as TorchScript or ONNX. This is the program `brloss-export`."""

import sys

from brloss_d2.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
