"""Images per second of reading, loading and prediction."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

import throughput
from brloss_d2.data import mapper

SLIM = "quick/atss_R_18_FPN_rs_300it"


def test_command_line(tmp_path: Path) -> None:
    """All ways are measured, the pixels compared, and the reader put back."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    output, read_image = tmp_path / "new" / "a.csv", mapper.read_image
    options = ["--loader", SLIM, "--most", "2", "--rounds", "1", "--workers", "0", "2"]
    arguments = ["--images", str(tmp_path), *options, "--output", str(output)]
    assert throughput.main(arguments) == 0
    assert mapper.read_image is read_image
    with output.open() as file:
        rows = list(csv.DictReader(file))
    ways = {
        stage: [row["way"] for row in rows if row["stage"] == stage] for stage in ("read", "load")
    }
    assert ways["read"] == ways["load"] == list(throughput.READERS)
    assert [row["way"] for row in rows if row["stage"] == "predict"] == ["0 workers", "2 workers"]
    assert {row["images"] for row in rows} == {"2"} and all(float(row["ms"]) > 0 for row in rows)
    assert {row["difference"] for row in rows if row["stage"] == "read"} == {"0"}
