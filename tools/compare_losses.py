"""Train a detector with several losses and compare them: benchmarks/compare_losses.py."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    program = Path(__file__).resolve().parents[1] / "benchmarks" / "compare_losses.py"
    os.execv(sys.executable, [sys.executable, str(program), *sys.argv[1:]])
