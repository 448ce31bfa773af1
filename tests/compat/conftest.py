"""The modules under test are scripts outside of the package: make them importable."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "compat" / "detectron2"), str(ROOT / "requirements")]
