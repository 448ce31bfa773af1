"""The wheel, installed without the clone: programs and imports work from any folder."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import detectron2
import pytest
import torch
import torchvision

Run = Callable[..., str]
ROOT = Path(__file__).parents[1]
FOLDERS = ("brloss_d2", "configs", "projects")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment in which the wheel is installed.

    The wheel is built from the source distribution, so that both have to be complete. The
    environment sees the packages of the one that runs the tests, but not the clone.
    """
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    build = "import setuptools.build_meta as b; b.build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    shutil.rmtree(source)
    (distribution,) = folder.glob("*.tar.gz")
    pip(
        sys.executable,
        folder,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        ".",
        distribution,
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    python = folder / "venv/bin/python"
    pip(python, folder, "install", "--no-deps", "--no-index", wheel)
    locate = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site_packages = subprocess.check_output([python, "-c", locate], text=True).strip()
    visible = [*sys.path, str(Path(detectron2.__file__).parents[1])]
    others = [p for p in visible if "site-packages" in p or not Path(p).is_relative_to(ROOT)]
    others = [p for p in others if Path(p).is_dir() and not Path(p, "brloss_d2").exists()]
    Path(site_packages, "others.pth").write_text("\n".join(others))
    return python.parent


def pip(python: str | Path, folder: Path, *arguments: object) -> None:
    command = [python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    subprocess.run(list(map(str, command)), cwd=folder, check=True)


@pytest.fixture
def run(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program of the environment in an empty folder and return what it prints."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def call(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(programs / program), *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


@pytest.mark.parametrize(
    "name", ["train", "predict", "analyze", "convert", "export", "configs", "data"]
)
def test_help_needs_no_torch(run: Run, name: str) -> None:
    code = (
        "import sys\n"
        f"from brloss_d2.cli.{name} import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'detectron2'} & set(sys.modules)\n"
    )
    assert "usage:" in run("python", "-c", code)
    assert run(f"brloss-{name}", "--help").startswith(f"usage: brloss-{name} ")


def test_everything_comes_from_the_wheel(run: Run, programs: Path) -> None:
    code = (
        "import sys, brloss_d2\n"
        "from brloss_d2 import model_zoo\n"
        "import brloss_d2.engine, brloss_d2.modeling, brloss_d2.prediction\n"
        "from detectron2.config import instantiate\n"
        "instantiate(model_zoo.get_config('co_detr/co_deformable_detr_R_50_brs_1x').model)\n"
        "from brloss_d2.checkpoint import architectures\n"
        "assert 'co_deformable_detr' in architectures()\n"
        "for name, module in sys.modules.items():\n"
        "    if name.startswith('brloss_d2') and getattr(module, '__file__', None):\n"
        "        print(module.__file__)\n"
        "names = [entry.name for entry in model_zoo.list_configs()]\n"
        "print(*map(model_zoo.config_file, names), sep='\\n')\n"
        "print(*brloss_d2.__path__, *brloss_d2.projects.__path__, sep='\\n')\n"
    )
    files = run("python", "-c", code).splitlines()
    assert len(files) > 150
    assert all(file.startswith(str(programs.parent)) for file in files)
    for part in ("co_detr/configs/co_deformable_detr_R_50_brs_1x.py", "co_detr/modeling/"):
        assert any(f"projects/{part}" in file for file in files)


def test_recipes_are_described(run: Run) -> None:
    names = ["coco/atss_R_50_FPN_brs_1x", "co_detr/co_deformable_detr_R_50_brs_1x"]
    cards = run("brloss-configs", *names)
    assert all(name in cards for name in names)


def test_train_analyze_predict(run: Run, tmp_path: Path) -> None:
    """From images of shapes to pictures with detections, with the programs only."""
    run("python", "-c", "from brloss_d2.data import write_shapes; write_shapes('shapes', 4, 2)")
    data = {
        f"data.{split}{suffix}": path
        for split in ("train", "val")
        for suffix, path in (
            ("", f"shapes/annotations/instances_{split}.json"),
            ("_images", f"shapes/{split}"),
        )
    }
    run(
        *("brloss-train", "--config", "quick/atss_R_18_FPN_brs_300it"),
        *(f"{key}={value}" for key, value in data.items()),
        *("train.max_iter=2", "train.init_checkpoint=", "train.output_dir=run"),
        *("train.device=cpu", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"),
    )
    analysis = run("brloss-analyze", "--output-dir", "run")
    assert "oLRP" in analysis and (tmp_path / "run/calibration.json").is_file()
    found = run(
        *("brloss-predict", "--config", "run/config.yaml", "--weights", "run/model_final.pth"),
        *("--input", "shapes/val", "--output", "predictions", "--device", "cpu"),
    )
    assert found.endswith("objects in 2 images: predictions\n")
    images = json.loads((tmp_path / "predictions/images.json").read_text())["images"]
    assert all((tmp_path / "predictions" / image["picture"]).is_file() for image in images)


def test_convert(run: Run, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    assert run("brloss-convert", "resnet18.pth", "backbone.pth").startswith("ResNet: 100 tensors")
