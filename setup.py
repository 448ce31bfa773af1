"""Packaging of brloss_d2. Ranges here, the versions it is developed with in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "brloss_d2/__init__.py").read_text()).group(1)
CITYSCAPES = ["pyquaternion>=0.9.9", "shapely>=2.0"]
# Projects of the repository, installed as brloss_d2.projects.<name>.
PROJECTS = {"brloss_d2.projects.co_detr": "projects/co_detr/co_detr"}
# What brloss_d2.model_zoo reads; it looks for them in `files` where there is no working copy.
MODEL_ZOO = ("configs/**/*.py", "projects/*/configs/**/*.py", "projects/*/README.md")
TEST = ["mypy>=1.11", "pytest>=8.0", "pytest-xdist>=3.5", "ruff>=0.6"]


class BuildWithModelZoo(build_py):
    """Copies the configs into the package, laid out as here, since they refer to each other."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        files = [path for pattern in MODEL_ZOO for path in sorted(ROOT.glob(pattern))]
        for path in [*files, ROOT / "docs/model_zoo.md"]:
            target = Path(self.build_lib, "brloss_d2/model_zoo/files", path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(path), str(target))


setup(
    name="brloss_d2",
    version=VERSION,
    description="Ranking-based losses for object detection and segmentation, on Detectron2",
    license="Apache-2.0",
    packages=[
        *find_packages(include=["brloss_d2", "brloss_d2.*"]),
        *PROJECTS,
        *(f"{name}.{part}" for name, path in PROJECTS.items() for part in find_packages(path)),
    ],
    package_dir=PROJECTS,
    cmdclass={"build_py": BuildWithModelZoo},
    python_requires=">=3.10",
    # brloss_d2.ops, losses and criteria need torch alone. detectron2, which the rest needs, is not
    # on PyPI: see compat/detectron2.
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "faster-coco-eval>=1.8",
        "fvcore>=0.1.5",
        "hydra-core>=1.3",
        "iopath>=0.1.9",
        "numpy>=1.24",
        "omegaconf>=2.3",
        "pillow>=9.1",
        "pycocotools>=2.0.6",
        "pyyaml>=6.0",
        "scipy>=1.10",
        "tabulate>=0.9",
        "tqdm>=4.62",
    ],
    # LVIS and Cityscapes need requirements/no_deps.txt, and Cityscapes these.
    extras_require={
        "cityscapes": CITYSCAPES,
        "test": [*CITYSCAPES, *TEST],
        "wandb": ["wandb>=0.16"],
    },
)
