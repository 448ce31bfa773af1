"""The notebook: its cells run one after the other, and it is kept without outputs."""

import json
import re
from pathlib import Path

from tests.docs.reading import ROOT
from tests.helpers.programs import Programs

NOTEBOOK = ROOT / "demo" / "first_steps.ipynb"
FULL = "ITERATIONS, TRAIN, VAL = 300, 400, 100"
QUICK = "ITERATIONS, TRAIN, VAL = 2, 6, 3"


def test_its_cells_run(programs: Programs, tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 10
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs"
    script = "\n\n".join(code)
    assert script.count(FULL) == 1
    # Untrained, nothing else is found.
    script = re.sub(r"(images=image, )", r"\1score_threshold=0.0, ", script.replace(FULL, QUICK))
    (tmp_path / "cells.py").write_text(script, encoding="utf-8")
    programs.run(["cells.py"], tmp_path)
    assert (tmp_path / "output/notebook_shared/model_final.pth").is_file()
    assert list((tmp_path / "output/notebook_pictures/pictures").glob("*.png"))
