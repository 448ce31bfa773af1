"""Run all GPU checks and measurements in one command: benchmarks/gpu_report.py."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    program = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu_report.py"
    os.execv(sys.executable, [sys.executable, str(program), *sys.argv[1:]])
