"""Every command and Python block in the documents runs in a quick form.

`quick.py` defines the quick forms, and lists the few commands that cannot run. The commands of a
document run one after the other in a folder with what the text assumes: the programs, a small
dataset under the names in the text, and a trained run.
"""

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.docs.quick import CONFIG, CUSTOM_DATA, SHAPES, VARIABLES, quick_form, runs_once
from tests.docs.reading import DOCUMENTS, PYTHON, ROOT, Block, Command, read_blocks, read_commands
from tests.helpers.programs import Programs

HERE = Path(__file__).parent
FOLDERS = ("benchmarks", "brloss_d2", "configs", "demo", "projects", "tools")
PROGRAMS = (*FOLDERS, "train_net.py", "Makefile")
# Folders of trained runs, images and annotations, under their names in the documents.
RUNS = (
    "output/a",
    "output/demo",
    "output/mine",
    "output/run",
    "output/shapes",
    "RUN",
    "RUN1",
    "RUN2",
)
DATA = {
    "train.json": f"{SHAPES}/annotations/instances_train.json",
    "val.json": f"{SHAPES}/annotations/instances_val.json",
    "train": f"{SHAPES}/train",
    "val": f"{SHAPES}/val",
    "folder": f"{SHAPES}/val",
    "photos": f"{SHAPES}/val",
    "image_info_test-dev2017.json": f"{SHAPES}/annotations/instances_val.json",
    "test2017": f"{SHAPES}/val",
}
# Checkpoints from other sources.
WEIGHTS = {
    "published.pth": "configs/coco/faster_rcnn_R_50_FPN_brs_1x.py",
    "from_a_stranger.pth": "configs/coco/mask_rcnn_R_50_FPN_rs_1x.py",
}
# Code before the Python blocks of a document: variables that the text assumes.
GIVEN = {
    "README.md": "from detectron2.config import get_cfg; cfg = get_cfg()",
    "docs/evaluation.md": (
        "import torch; scores, labels = torch.tensor([0.9, 0.1]), torch.tensor([0, 2]); "
        "class_names = ['circle', 'rectangle', 'triangle']"
    ),
}


@pytest.fixture(scope="session")
def furnished(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small data and a run trained on them."""
    folder = tmp_path_factory.mktemp("furnished")
    _link_programs(folder)
    for tool in ("make_shapes", "make_miniatures"):
        programs.run([f"tools/{tool}.py", "--train", "12", "--val", "4"], folder)
    small = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0", "train.max_iter=10"]
    options = [*CUSTOM_DATA, *small, "train.output_dir=output/a"]
    programs.run(["train_net.py", "--config-file", CONFIG, *options], folder)
    programs.run(["tools/analyze_detections.py", "--output-dir", "output/a"], folder)
    return folder


@pytest.fixture
def desk(furnished: Path, tmp_path: Path, document: str) -> Path:
    """A folder of its own for each document, with the runs that it names."""
    text = (ROOT / document).read_text()
    if not read_blocks(text):
        return tmp_path
    _link_programs(tmp_path)
    shutil.copytree(furnished / "datasets", tmp_path / "datasets")
    for name in (name for name in RUNS if name in text):
        shutil.copytree(furnished / "output" / "a", tmp_path / name)
    for name, target in DATA.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    picture = sorted((tmp_path / SHAPES / "val").iterdir())[0]
    (tmp_path / "photo.jpg").symlink_to(picture)
    _film(picture, tmp_path / "clip.mp4")
    (tmp_path / "more").mkdir()
    Image.open(picture).save(tmp_path / "more" / "a.png")
    return tmp_path


def _film(picture: Path, path: Path) -> None:
    """Write a video of two equal frames."""
    frame = np.asarray(Image.open(picture).convert("RGB"))
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(2):
        video.write(frame)
    video.release()


def _link_programs(folder: Path) -> None:
    for name in PROGRAMS:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_document(document: str, desk: Path, programs: Programs) -> None:
    text = (ROOT / document).read_text()
    for name, config in WEIGHTS.items():
        if name in text:
            programs.run([str(HERE / "make_weights.py"), config, name], desk)
    blocks = read_blocks(text)
    failures = []
    for block in blocks:
        if block.language == PYTHON and (name := _file_name(block)):
            (desk / name).write_text(block.text)
    for command in read_commands(blocks, VARIABLES):
        try:
            _try(command, desk, programs)
        except (AssertionError, LookupError) as error:
            failures.append(f"{document}, {command}\n{error}")
    python = [b for b in blocks if b.language == PYTHON and not _file_name(b)]
    if python:
        script = _script(python, GIVEN.get(document, ""), desk)
        try:
            programs.run([script], desk)
        except AssertionError as error:
            failures.append(f"Python blocks of {document}: {error}")
    assert not failures, "\n\n".join(failures)


def _try(command: Command, desk: Path, programs: Programs) -> None:
    quick = quick_form(command.words)
    if quick.words[0] == "-c":
        (desk / "typed.py").write_text(quick.words[1])
        programs.run(["typed.py"], desk)
    elif runs_once(quick.words) and quick.words in programs.done and not command.environment:
        return
    elif not quick.why_not:
        programs.run(quick.words, desk, command.environment)
    elif quick.words[0] == "make":
        dry = ["make", "-n", *quick.words[1:]]
        done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif {"pip", "pytest"} & {*quick.words}:
        local = [word for word in quick.words if "/" in word and "+" not in word]
        assert all((ROOT / word).exists() for word in local), f"not all exist: {local}"
    elif quick.words[1] == "train_net.py":
        programs.run([str(HERE / "only_parse.py"), *quick.words[2:]], desk)


def _file_name(block: Block) -> str:
    """Return the name of the file that a block is, told in its first line; "" if it is none."""
    found = re.match(r"# (\w+\.py)\n", block.text)
    return found[1] if found else ""


def _script(blocks: list[Block], given: str, folder: Path) -> str:
    """All blocks as one program, each at its line of the document."""
    text = given
    for block in blocks:
        text += "\n" * (block.line - 1 - text.count("\n")) + block.text
    (folder / "blocks.py").write_text(text)
    return "blocks.py"
